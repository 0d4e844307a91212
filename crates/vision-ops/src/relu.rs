//! relu out of tensor ops, with PyTorch's derivative.

use candle_core::{Result, Tensor};

/// 0 where `x` is 0 or less, else `x`; NaN stays. The derivative at 0 is 0.
///
/// Candle's own `relu` turns NaN into 0, and its derivative at 0 is 1.
pub(crate) fn relu(x: &Tensor) -> Result<Tensor> {
    let zeros = x.zeros_like()?;
    x.le(&zeros)?.where_cond(&zeros, x)
}
