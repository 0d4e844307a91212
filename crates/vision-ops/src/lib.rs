//! candle-vision-ops.
