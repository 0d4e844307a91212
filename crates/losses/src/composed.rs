//! Losses in Candle's tensor operations: the readable form, whose gradient autograd derives, and the oracle of the fused
//! form.

use candle_core::{Result, Tensor};

use crate::CrossEntropy;

/// Mean cross entropy of `logits` (N, C), (C) or (N, C, d1, ...) and class indices `targets` (N), () or (N, d1, ...); with
/// options [`CrossEntropy::composed`].
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::{composed, cross_entropy};
///
/// # fn main() -> candle_core::Result<()> {
/// let logits = Tensor::new(&[[1.0f64, 2.0, 3.0]], &Device::Cpu)?;
/// let targets = Tensor::new(&[1u32], &Device::Cpu)?;
/// let difference = (composed::cross_entropy(&logits, &targets)? - cross_entropy(&logits, &targets)?)?;
/// assert!(difference.to_scalar::<f64>()?.abs() < 1e-12);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`CrossEntropy::forward`].
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    CrossEntropy::new().composed(logits, targets)
}
