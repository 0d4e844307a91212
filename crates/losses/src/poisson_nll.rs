//! Negative log-likelihood of counts under a Poisson distribution.

#[cfg(feature = "cuda")]
use crate::pointwise::CudaKernels;
use crate::pointwise::error::check_number;
use crate::pointwise::options::{MeanOver, Options, common_options};
use crate::pointwise::{Float, Pointwise, has_kernels, times};
use candle_core::{Result, Tensor};
use std::f64::consts::PI;

/// Poisson negative log-likelihood with default options (the input is the logarithm of the rate); see
/// [`PoissonNll`].
pub fn poisson_nll(input: &Tensor, target: &Tensor) -> Result<Tensor> {
    PoissonNll::new().forward(input, target)
}

/// Negative log-likelihood of a count t under a Poisson distribution (PyTorch's `poisson_nll_loss`).
///
/// exp(x) - t x where the input is the logarithm of the rate (the default), else x - t ln(x + eps). The constant
/// ln t! is left out, or with [`full`](Self::full) approximated by Stirling's t ln t - t + ln(2 pi t) / 2 for t > 1.
///
/// Gradient: exp(x) - t, or 1 - t / (x + eps). For the target: -x, or -ln(x + eps), and with `full` for t > 1
/// ln t + 1 / (2 t) more.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::PoissonNll;
/// # fn main() -> candle_core::Result<()> {
/// let rate = Tensor::new(&[2.0f64, 3.0], &Device::Cpu)?;
/// let count = Tensor::new(&[0.0f64, 3.0], &Device::Cpu)?;
/// let of_rate = PoissonNll::new().log_input(false).eps(0.0).forward(&rate, &count)?;
/// let of_log = PoissonNll::new().forward(&rate.log()?, &count)?;
/// assert!((of_rate.to_scalar::<f64>()? - of_log.to_scalar::<f64>()?).abs() < 1e-15);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PoissonNll {
    log_input: bool,
    full: bool,
    eps: f64,
    options: Options,
}

/// Stirling's approximation of ln t!, for t > 1 only, as in PyTorch.
#[inline(always)]
fn stirling<F: Float>(full: bool, t: F) -> F {
    if full && t > F::of(1.0) {
        t * t.ln() - t + F::of(0.5) * (F::of(2.0 * PI) * t).ln()
    } else {
        F::of(0.0)
    }
}

#[inline(always)]
fn stirling_derivative<F: Float>(full: bool, t: F) -> F {
    if full && t > F::of(1.0) {
        t.ln() + F::of(0.5) / t
    } else {
        F::of(0.0)
    }
}

#[derive(Clone, Copy, Debug)]
struct OfLogRate {
    full: bool,
}

impl Pointwise for OfLogRate {
    fn name(&self) -> &'static str {
        "poisson_nll"
    }
    #[cfg(feature = "cuda")]
    fn cuda_kernels(&self) -> Option<CudaKernels> {
        let ptx = crate::cuda_kernel::ptx::POISSON_NLL;
        let kernels = CudaKernels::new("candle_losses_poisson_nll", ptx, "poisson_nll");
        Some(kernels.constants([f64::from(self.full)]))
    }
    #[inline(always)]
    fn value<F: Float>(&self, x: F, t: F) -> F {
        x.exp() - times(t, x) + stirling(self.full, t)
    }
    #[inline(always)]
    fn derivative<F: Float>(&self, x: F, t: F) -> F {
        x.exp() - t
    }
    #[inline(always)]
    fn target_derivative<F: Float>(&self, x: F, t: F) -> F {
        stirling_derivative(self.full, t) - x
    }
}

#[derive(Clone, Copy, Debug)]
struct OfRate {
    full: bool,
    eps: f64,
}

impl Pointwise for OfRate {
    fn name(&self) -> &'static str {
        "poisson_nll"
    }
    #[cfg(feature = "cuda")]
    fn cuda_kernels(&self) -> Option<CudaKernels> {
        let ptx = crate::cuda_kernel::ptx::POISSON_NLL;
        let kernels = CudaKernels::new("candle_losses_poisson_nll", ptx, "poisson_nll_rate");
        Some(kernels.constants([f64::from(self.full), self.eps]))
    }
    #[inline(always)]
    fn value<F: Float>(&self, x: F, t: F) -> F {
        x - times(t, (x + F::of(self.eps)).ln()) + stirling(self.full, t)
    }
    #[inline(always)]
    fn derivative<F: Float>(&self, x: F, t: F) -> F {
        F::of(1.0) - times(t, F::of(1.0) / (x + F::of(self.eps)))
    }
    #[inline(always)]
    fn target_derivative<F: Float>(&self, x: F, t: F) -> F {
        stirling_derivative(self.full, t) - (x + F::of(self.eps)).ln()
    }
}

impl Default for PoissonNll {
    fn default() -> Self {
        Self::new()
    }
}

impl PoissonNll {
    /// The input is the logarithm of the rate, no Stirling term, eps 1e-8, mean reduction, no weight.
    pub fn new() -> Self {
        Self {
            log_input: true,
            full: false,
            eps: 1e-8,
            options: Options::default(),
        }
    }

    /// Whether the input is the logarithm of the rate. Default: true.
    pub fn log_input(mut self, log_input: bool) -> Self {
        self.log_input = log_input;
        self
    }

    /// Whether Stirling's approximation of ln t! is added. Default: false.
    pub fn full(mut self, full: bool) -> Self {
        self.full = full;
        self
    }

    /// Keeps ln(x + eps) finite at rate 0, where the input is the rate itself; finite and at least 0. Default: 1e-8.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    common_options!(
        "Multiplies each element's loss; the mean still divides by the number of elements."
    );

    fn check(&self) -> Result<()> {
        let advice = "PyTorch's default is 1e-8";
        Ok(check_number(
            "poisson_nll",
            "eps",
            self.eps,
            "be finite and not below 0",
            self.eps >= 0.0,
            advice,
        )?)
    }

    /// The loss of two tensors of one shape and dtype (f32, f64, f16 or bf16): a scalar, or the input's shape without
    /// reduction. On devices without
    /// kernels of ours this is [`composed`](Self::composed).
    ///
    /// # Errors
    ///
    /// If target or weight do not fit the input in shape, dtype or device, the input is not a float tensor, or eps is
    /// out of its range.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        if !has_kernels(input.device()) {
            return self.composed(input, target);
        }
        self.check()?;
        let Self { full, eps, .. } = *self;
        let mean = MeanOver::Elements;
        if self.log_input {
            self.options
                .fused(OfLogRate { full }, input, target, None, mean)
        } else {
            self.options
                .fused(OfRate { full, eps }, input, target, None, mean)
        }
    }

    /// The same out of tensor ops, with candle's autograd.
    pub fn composed(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        self.check()?;
        let mean = MeanOver::Elements;
        self.options
            .reduce("poisson_nll", input, target, mean, |x, t| {
                let loss = if self.log_input {
                    (x.exp()? - t.mul(x)?)?
                } else {
                    (x - t.mul(&(x + self.eps)?.log()?)?)?
                };
                if !self.full {
                    return Ok(loss);
                }
                let large = t.gt(1.0)?;
                // Where the term is not used its logarithm must be finite, or its gradient would be 0 times infinity.
                let safe = large.where_cond(t, &t.ones_like()?)?;
                let half_log = ((&safe * (2.0 * PI))?.log()? * 0.5)?;
                let term = ((safe.mul(&safe.log()?)? - &safe)? + half_log)?;
                loss + large.where_cond(&term, &t.zeros_like()?)?
            })
    }
}
