//! Smooth L1 loss.

use crate::l1::AbsoluteError;
#[cfg(feature = "cuda")]
use crate::pointwise::CudaKernels;
use crate::pointwise::error::check_number;
use crate::pointwise::options::{MeanOver, Options, common_options};
use crate::pointwise::{Float, Pointwise, composed, has_kernels};
use candle_core::{Result, Tensor};

/// Smooth L1 loss with beta 1 and default options; see [`SmoothL1`].
pub fn smooth_l1(input: &Tensor, target: &Tensor) -> Result<Tensor> {
    SmoothL1::new().forward(input, target)
}

/// Absolute error, rounded off near the target (PyTorch's `smooth_l1_loss`).
///
/// With d = x - t: d^2 / (2 beta) where |d| < beta, else |d| - beta / 2. Gradient: d / beta clipped to [-1, 1]; the
/// opposite for the target. Beta 0 is [L1](crate::L1).
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use candle_losses::{Reduction, SmoothL1};
/// # fn main() -> candle_core::Result<()> {
/// let input = Var::new(&[0.25f32, 3.0], &Device::Cpu)?;
/// let target = Tensor::new(&[0.0f32, 0.0], &Device::Cpu)?;
/// let loss = SmoothL1::new().beta(0.5).reduction(Reduction::None).forward(&input, &target)?;
/// assert_eq!(loss.to_vec1::<f32>()?, [0.0625, 2.75]);
/// let gradient = loss.sum_all()?.backward()?.get(&input).unwrap().to_vec1::<f32>()?;
/// assert_eq!(gradient, [0.5, 1.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SmoothL1 {
    beta: f64,
    options: Options,
}

#[derive(Clone, Copy, Debug)]
struct SmoothError {
    beta: f64,
}

impl Pointwise for SmoothError {
    fn name(&self) -> &'static str {
        "smooth_l1"
    }
    #[cfg(feature = "cuda")]
    fn cuda_kernels(&self) -> Option<CudaKernels> {
        let ptx = crate::cuda_kernel::ptx::SMOOTH_L1;
        let kernels = CudaKernels::new("candle_losses_smooth_l1", ptx, "smooth_l1");
        Some(kernels.constants([self.beta]))
    }
    #[inline(always)]
    fn value<F: Float>(&self, x: F, t: F) -> F {
        let (a, beta) = ((x - t).abs(), F::of(self.beta));
        if a < beta {
            F::of(0.5) * a * a / beta
        } else {
            a - F::of(0.5) * beta
        }
    }
    #[inline(always)]
    fn derivative<F: Float>(&self, x: F, t: F) -> F {
        ((x - t) / F::of(self.beta))
            .max(F::of(-1.0))
            .min(F::of(1.0))
    }
    #[inline(always)]
    fn target_derivative<F: Float>(&self, x: F, t: F) -> F {
        self.derivative(t, x)
    }
}

impl Default for SmoothL1 {
    fn default() -> Self {
        Self::new()
    }
}

impl SmoothL1 {
    /// Beta 1, mean reduction, no weight.
    pub fn new() -> Self {
        Self {
            beta: 1.0,
            options: Options::default(),
        }
    }

    /// Where the loss turns from squared to absolute error; finite and at least 0. Default: 1.
    pub fn beta(mut self, beta: f64) -> Self {
        self.beta = beta;
        self
    }

    common_options!(
        "Multiplies each element's loss; the mean still divides by the number of elements."
    );

    fn check(&self) -> Result<()> {
        let advice = "beta 0 is L1";
        Ok(check_number(
            "smooth_l1",
            "beta",
            self.beta,
            "be finite and not below 0",
            self.beta >= 0.0,
            advice,
        )?)
    }

    /// The loss of two tensors of one shape and dtype (f32, f64, f16 or bf16): a scalar, or the input's shape without
    /// reduction. On devices without
    /// kernels of ours this is [`composed`](Self::composed).
    ///
    /// # Errors
    ///
    /// If target or weight do not fit the input in shape, dtype or device, the input is not a float tensor, or beta
    /// is out of its range.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        if !has_kernels(input.device()) {
            return self.composed(input, target);
        }
        self.check()?;
        if self.beta == 0.0 {
            let function = AbsoluteError { name: "smooth_l1" };
            return self
                .options
                .fused(function, input, target, None, MeanOver::Elements);
        }
        let function = SmoothError { beta: self.beta };
        self.options
            .fused(function, input, target, None, MeanOver::Elements)
    }

    /// The same out of tensor ops, with candle's autograd.
    pub fn composed(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        self.check()?;
        let beta = self.beta;
        self.options
            .reduce("smooth_l1", input, target, MeanOver::Elements, |x, t| {
                let d = (x - t)?;
                let a = composed::abs(&d)?;
                if beta == 0.0 {
                    return Ok(a);
                }
                let near = a.lt(beta)?;
                near.where_cond(&(d.sqr()? * (0.5 / beta))?, &a.affine(1.0, -0.5 * beta)?)
            })
    }
}
