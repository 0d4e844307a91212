//! Mean squared error.

#[cfg(feature = "cuda")]
use crate::pointwise::CudaKernels;
use crate::pointwise::options::{MeanOver, Options, common_options};
use crate::pointwise::{Float, Pointwise, has_kernels};
use candle_core::{Result, Tensor};

/// Mean squared error with its default options; see [`Mse`].
pub fn mse(input: &Tensor, target: &Tensor) -> Result<Tensor> {
    Mse::new().forward(input, target)
}

/// Squared error, (x - t)^2 (PyTorch's `mse_loss`).
///
/// Gradient: 2 (x - t) for the input, the opposite for the target. With a weight, the mean divides by the sum of the
/// weights over all elements, as PyTorch does for this loss.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use candle_losses::Mse;
/// # fn main() -> candle_core::Result<()> {
/// let input = Var::new(&[1.0f32, 2.0, 4.0], &Device::Cpu)?;
/// let target = Tensor::new(&[1.0f32, 1.0, 1.0], &Device::Cpu)?;
/// let loss = Mse::new().forward(&input, &target)?;
/// assert!((loss.to_scalar::<f32>()? - 10.0 / 3.0).abs() < 1e-6);
/// let gradient = loss.backward()?.get(&input).unwrap().to_vec1::<f32>()?;
/// assert_eq!(gradient[0], 0.0);
/// assert!((gradient[2] - 2.0).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Mse {
    options: Options,
}

#[derive(Clone, Copy, Debug)]
struct SquaredError;

impl Pointwise for SquaredError {
    fn name(&self) -> &'static str {
        "mse"
    }
    #[cfg(feature = "cuda")]
    fn cuda_kernels(&self) -> Option<CudaKernels> {
        let ptx = crate::cuda_kernel::ptx::MSE;
        let kernels = CudaKernels::new("candle_losses_mse", ptx, "mse");
        Some(kernels)
    }
    #[inline(always)]
    fn value<F: Float>(&self, x: F, t: F) -> F {
        let d = x - t;
        d * d
    }
    #[inline(always)]
    fn derivative<F: Float>(&self, x: F, t: F) -> F {
        F::of(2.0) * (x - t)
    }
    #[inline(always)]
    fn target_derivative<F: Float>(&self, x: F, t: F) -> F {
        F::of(2.0) * (t - x)
    }
}

impl Mse {
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
        self.options
            .fused(SquaredError, input, target, None, MeanOver::Weights)
    }

    /// The same out of tensor ops, with candle's autograd.
    pub fn composed(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        self.options
            .reduce("mse", input, target, MeanOver::Weights, |x, t| {
                (x - t)?.sqr()
            })
    }
}
