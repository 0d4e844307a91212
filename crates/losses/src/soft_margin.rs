//! Soft margin loss: logistic regression with targets -1 and 1.

#[cfg(feature = "cuda")]
use crate::pointwise::CudaKernels;
use crate::pointwise::options::{MeanOver, Options, common_options};
use crate::pointwise::{Float, Pointwise, composed, has_kernels};
use candle_core::{Result, Tensor};

/// Soft margin loss with default options; see [`SoftMargin`].
pub fn soft_margin(input: &Tensor, target: &Tensor) -> Result<Tensor> {
    SoftMargin::new().forward(input, target)
}

/// ln(1 + exp(-t x)) for targets t of -1 and 1 (PyTorch's `soft_margin_loss`), without its overflow at large margins.
///
/// Gradient: -t sigmoid(-t x); for the target -x sigmoid(-t x).
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use candle_losses::{Reduction, SoftMargin};
/// # fn main() -> candle_core::Result<()> {
/// let input = Var::new(&[0.0f32, 1000.0, 1000.0], &Device::Cpu)?;
/// let target = Tensor::new(&[1.0f32, 1.0, -1.0], &Device::Cpu)?;
/// let loss = SoftMargin::new().reduction(Reduction::None).forward(&input, &target)?;
/// assert_eq!(loss.to_vec1::<f32>()?, [std::f32::consts::LN_2, 0.0, 1000.0]);
/// let gradient = loss.sum_all()?.backward()?.get(&input).unwrap().to_vec1::<f32>()?;
/// assert_eq!(gradient, [-0.5, 0.0, 1.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct SoftMargin {
    options: Options,
}

#[derive(Clone, Copy, Debug)]
struct Margin;

impl Pointwise for Margin {
    fn name(&self) -> &'static str {
        "soft_margin"
    }
    #[cfg(feature = "cuda")]
    fn cuda_kernels(&self) -> Option<CudaKernels> {
        let ptx = crate::cuda_kernel::ptx::SOFT_MARGIN;
        let kernels = CudaKernels::new("candle_losses_soft_margin", ptx, "soft_margin");
        Some(kernels)
    }
    #[inline(always)]
    fn value<F: Float>(&self, x: F, t: F) -> F {
        (-t * x).softplus()
    }
    #[inline(always)]
    fn derivative<F: Float>(&self, x: F, t: F) -> F {
        -t * (-t * x).sigmoid()
    }
    #[inline(always)]
    fn target_derivative<F: Float>(&self, x: F, t: F) -> F {
        -x * (-t * x).sigmoid()
    }
}

impl SoftMargin {
    /// Mean reduction, no weight.
    pub fn new() -> Self {
        Self::default()
    }

    common_options!(
        "Multiplies each element's loss; the mean still divides by the number of elements."
    );

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
            .fused(Margin, input, target, None, MeanOver::Elements)
    }

    /// The same out of tensor ops, with candle's autograd.
    pub fn composed(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let mean = MeanOver::Elements;
        self.options
            .reduce("soft_margin", input, target, mean, |x, t| {
                composed::softplus(&x.mul(t)?.neg()?)
            })
    }
}
