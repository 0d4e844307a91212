//! candle-gradcheck.
