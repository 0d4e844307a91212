//! Absolute error.

#[cfg(feature = "cuda")]
use crate::pointwise::CudaKernels;
use crate::pointwise::options::{MeanOver, Options, common_options};
use crate::pointwise::{Float, Pointwise, composed, has_kernels};
use candle_core::{Result, Tensor};

/// Mean absolute error with its default options; see [`L1`].
pub fn l1(input: &Tensor, target: &Tensor) -> Result<Tensor> {
    L1::new().forward(input, target)
}

/// Absolute error, |x - t| (PyTorch's `l1_loss`).
///
/// Gradient: the sign of x - t, and 0 where they are equal; the opposite for the target. With a weight, the mean
/// divides by the sum of the weights over all elements, as PyTorch does for this loss.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use candle_losses::L1;
/// # fn main() -> candle_core::Result<()> {
/// let input = Var::new(&[1.0f32, 2.0, -2.0], &Device::Cpu)?;
/// let target = Tensor::new(&[1.0f32, 1.0, 1.0], &Device::Cpu)?;
/// let loss = L1::new().forward(&input, &target)?;
/// assert!((loss.to_scalar::<f32>()? - 4.0 / 3.0).abs() < 1e-6);
/// let gradient = loss.backward()?.get(&input).unwrap().to_vec1::<f32>()?;
/// assert_eq!(gradient, [0.0, 1.0 / 3.0, -1.0 / 3.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct L1 {
    options: Options,
}

/// Also what smooth L1 is for beta 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AbsoluteError {
    pub(crate) name: &'static str,
}

impl Pointwise for AbsoluteError {
    fn name(&self) -> &'static str {
        self.name
    }
    #[cfg(feature = "cuda")]
    fn cuda_kernels(&self) -> Option<CudaKernels> {
        let ptx = crate::cuda_kernel::ptx::L1;
        let kernels = CudaKernels::new("candle_losses_l1", ptx, "l1");
        Some(kernels)
    }
    #[inline(always)]
    fn value<F: Float>(&self, x: F, t: F) -> F {
        (x - t).abs()
    }
    #[inline(always)]
    fn derivative<F: Float>(&self, x: F, t: F) -> F {
        (x - t).sign()
    }
    #[inline(always)]
    fn target_derivative<F: Float>(&self, x: F, t: F) -> F {
        (t - x).sign()
    }
}

impl L1 {
    /// Mean reduction, no weight.
    pub fn new() -> Self {
        Self::default()
    }

    common_options!("Multiplies each element's loss; the mean divides by the sum of the weights.");

    /// The loss of two tensors of one shape and dtype (f32, f64, f16 or bf16): a scalar, or the input's shape without
    /// reduction. On devices without
    /// kernels of ours this is [`composed`](Self::composed).
    ///
    /// # Errors
    ///
    /// If target or weight do not fit the input in shape, dtype or device, or the input is not a float tensor.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        if !has_kernels(input.device()) {
            return self.composed(input, target);
        }
        let function = AbsoluteError { name: "l1" };
        self.options
            .fused(function, input, target, None, MeanOver::Weights)
    }

    /// The same out of tensor ops, with candle's autograd.
    pub fn composed(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        self.options
            .reduce("l1", input, target, MeanOver::Weights, |x, t| {
                composed::abs(&(x - t)?)
            })
    }
}
