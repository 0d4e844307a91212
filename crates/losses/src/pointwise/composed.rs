//! Pieces that the composed forms of the pointwise losses share: tensor ops with the gradients of the formulas, also
//! where candle's own choice at a tie differs.

use candle_core::{DType, Result, Tensor};

/// f16 and bf16 as f32, as the fused ops compute; the gradient is rounded once, on the way back.
pub(crate) fn widen(x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::F16 | DType::BF16 => x.to_dtype(DType::F32),
        _ => Ok(x.clone()),
    }
}

/// Absolute value with gradient 0 at 0 (candle's has 1 there).
pub(crate) fn abs(x: &Tensor) -> Result<Tensor> {
    x.mul(&x.sign()?.detach())
}

/// `ln(1 + exp(x))`. At x = 0 the ties of maximum and minimum share the gradient, which makes it the right 1/2.
pub(crate) fn softplus(x: &Tensor) -> Result<Tensor> {
    let small = x.minimum(&x.neg()?)?.exp()?;
    x.maximum(&x.zeros_like()?)?.add(&(small + 1.0)?.log()?)
}

/// `1 / (1 + exp(-x))` as exp of a number that is never positive: no overflow, no lost digits for very negative x.
pub(crate) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    softplus(&x.neg()?)?.neg()?.exp()
}

/// `factor * value`, and 0 where the factor is 0, whatever the value.
pub(crate) fn times(factor: &Tensor, value: &Tensor) -> Result<Tensor> {
    let none = factor.eq(&factor.zeros_like()?)?;
    let zeros = value.zeros_like()?;
    none.where_cond(&zeros, &factor.mul(&none.where_cond(&zeros, value)?)?)
}
