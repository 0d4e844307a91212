//! Huber loss.

#[cfg(feature = "cuda")]
use crate::pointwise::CudaKernels;
use crate::pointwise::error::check_number;
use crate::pointwise::options::{MeanOver, Options, common_options};
use crate::pointwise::{Float, Pointwise, composed, has_kernels};
use candle_core::{Result, Tensor};

/// Huber loss with delta 1 and default options; see [`Huber`].
pub fn huber(input: &Tensor, target: &Tensor) -> Result<Tensor> {
    Huber::new().forward(input, target)
}

/// Huber loss: squared error near the target, absolute error away from it (PyTorch's `huber_loss`).
///
/// With d = x - t: d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2). Gradient: d clipped to
/// [-delta, delta]; the opposite for the target. It is delta times [smooth L1](crate::SmoothL1) with beta = delta.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use candle_losses::{Huber, Reduction};
/// # fn main() -> candle_core::Result<()> {
/// let input = Var::new(&[0.25f32, 3.0], &Device::Cpu)?;
/// let target = Tensor::new(&[0.0f32, 0.0], &Device::Cpu)?;
/// let loss = Huber::new().delta(0.5).reduction(Reduction::None).forward(&input, &target)?;
/// assert_eq!(loss.to_vec1::<f32>()?, [0.03125, 1.375]);
/// let gradient = loss.sum_all()?.backward()?.get(&input).unwrap().to_vec1::<f32>()?;
/// assert_eq!(gradient, [0.25, 0.5]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Huber {
    delta: f64,
    options: Options,
}

#[derive(Clone, Copy, Debug)]
struct HuberError {
    delta: f64,
}

impl Pointwise for HuberError {
    fn name(&self) -> &'static str {
        "huber"
    }
    #[cfg(feature = "cuda")]
    fn cuda_kernels(&self) -> Option<CudaKernels> {
        let ptx = crate::cuda_kernel::ptx::HUBER;
        let kernels = CudaKernels::new("candle_losses_huber", ptx, "huber");
        Some(kernels.constants([self.delta]))
    }
    #[inline(always)]
    fn value<F: Float>(&self, x: F, t: F) -> F {
        let (a, delta) = ((x - t).abs(), F::of(self.delta));
        if a <= delta {
            F::of(0.5) * a * a
        } else {
            delta * (a - F::of(0.5) * delta)
        }
    }
    #[inline(always)]
    fn derivative<F: Float>(&self, x: F, t: F) -> F {
        (x - t).max(F::of(-self.delta)).min(F::of(self.delta))
    }
    #[inline(always)]
    fn target_derivative<F: Float>(&self, x: F, t: F) -> F {
        self.derivative(t, x)
    }
}

impl Default for Huber {
    fn default() -> Self {
        Self::new()
    }
}

impl Huber {
    /// Delta 1, mean reduction, no weight.
    pub fn new() -> Self {
        Self {
            delta: 1.0,
            options: Options::default(),
        }
    }

    /// Where the loss turns from squared to absolute error; finite and above 0. Default: 1.
    pub fn delta(mut self, delta: f64) -> Self {
        self.delta = delta;
        self
    }

    common_options!(
        "Multiplies each element's loss; the mean still divides by the number of elements."
    );

    fn check(&self) -> Result<()> {
        let advice = "use mse for the limit of a large delta";
        Ok(check_number(
            "huber",
            "delta",
            self.delta,
            "be finite and above 0",
            self.delta > 0.0,
            advice,
        )?)
    }

    /// The loss of two tensors of one shape and dtype (f32, f64, f16 or bf16): a scalar, or the input's shape without
    /// reduction. On devices without
    /// kernels of ours this is [`composed`](Self::composed).
    ///
    /// # Errors
    ///
    /// If target or weight do not fit the input in shape, dtype or device, the input is not a float tensor, or delta
    /// is out of its range.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        if !has_kernels(input.device()) {
            return self.composed(input, target);
        }
        self.check()?;
        let function = HuberError { delta: self.delta };
        self.options
            .fused(function, input, target, None, MeanOver::Elements)
    }

    /// The same out of tensor ops, with candle's autograd.
    pub fn composed(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        self.check()?;
        let delta = self.delta;
        self.options
            .reduce("huber", input, target, MeanOver::Elements, |x, t| {
                let d = (x - t)?;
                let a = composed::abs(&d)?;
                let near = a.le(delta)?;
                near.where_cond(&(d.sqr()? * 0.5)?, &a.affine(delta, -0.5 * delta * delta)?)
            })
    }
}
