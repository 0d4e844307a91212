//! candle-losses.
