//! candle-simd.
