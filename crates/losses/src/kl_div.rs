//! Kullback-Leibler divergence of log-probabilities.

#[cfg(feature = "cuda")]
use crate::pointwise::CudaKernels;
use crate::pointwise::options::{MeanOver, Options, common_options};
use crate::pointwise::{Float, Pointwise, composed, has_kernels, times};
use candle_core::{Result, Tensor};

/// Kullback-Leibler divergence with default options; see [`KlDiv`].
pub fn kl_div(input: &Tensor, target: &Tensor) -> Result<Tensor> {
    KlDiv::new().forward(input, target)
}

/// Pointwise Kullback-Leibler divergence of log-probabilities x from a target distribution (PyTorch's `kl_div`).
///
/// t (ln t - x) for a target of probabilities t; exp(t) (t - x) for one of log-probabilities
/// ([`log_target`](Self::log_target)). An outcome of target probability 0 contributes 0, whatever x, also -inf.
///
/// Gradient: -t, or -exp(t). For the target: ln t - x + 1 (-inf at t = 0), or exp(t) (t - x + 1).
///
/// [`Reduction::Mean`](crate::Reduction::Mean) divides by the number of elements, which is not the divergence of the
/// distributions; [`batch_mean`](Self::batch_mean) divides by the size of the first axis, which is.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::KlDiv;
/// # fn main() -> candle_core::Result<()> {
/// let input = Tensor::new(&[[0.5f64, 0.25, 0.25]], &Device::Cpu)?.log()?;
/// let target = Tensor::new(&[[0.5f64, 0.5, 0.0]], &Device::Cpu)?;
/// let loss = KlDiv::new().batch_mean(true).forward(&input, &target)?;
/// assert!((loss.to_scalar::<f64>()? - 0.5 * 2f64.ln()).abs() < 1e-15);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct KlDiv {
    log_target: bool,
    batch_mean: bool,
    options: Options,
}

#[derive(Clone, Copy, Debug)]
struct Divergence;

impl Pointwise for Divergence {
    fn name(&self) -> &'static str {
        "kl_div"
    }
    #[cfg(feature = "cuda")]
    fn cuda_kernels(&self) -> Option<CudaKernels> {
        let ptx = crate::cuda_kernel::ptx::KL_DIV;
        let kernels = CudaKernels::new("candle_losses_kl_div", ptx, "kl_div");
        Some(kernels)
    }
    #[inline(always)]
    fn value<F: Float>(&self, x: F, t: F) -> F {
        times(t, t.ln() - x)
    }
    #[inline(always)]
    fn derivative<F: Float>(&self, _x: F, t: F) -> F {
        -t
    }
    #[inline(always)]
    fn target_derivative<F: Float>(&self, x: F, t: F) -> F {
        t.ln() - x + F::of(1.0)
    }
}

#[derive(Clone, Copy, Debug)]
struct LogDivergence;

impl Pointwise for LogDivergence {
    fn name(&self) -> &'static str {
        "kl_div"
    }
    #[cfg(feature = "cuda")]
    fn cuda_kernels(&self) -> Option<CudaKernels> {
        let ptx = crate::cuda_kernel::ptx::KL_DIV;
        let kernels = CudaKernels::new("candle_losses_kl_div", ptx, "kl_div_log");
        Some(kernels)
    }
    #[inline(always)]
    fn value<F: Float>(&self, x: F, t: F) -> F {
        times(t.exp(), t - x)
    }
    #[inline(always)]
    fn derivative<F: Float>(&self, _x: F, t: F) -> F {
        -t.exp()
    }
    #[inline(always)]
    fn target_derivative<F: Float>(&self, x: F, t: F) -> F {
        times(t.exp(), t - x + F::of(1.0))
    }
}

impl KlDiv {
    /// Targets are probabilities, mean reduction over the elements, no weight.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether targets are log-probabilities. Default: false.
    pub fn log_target(mut self, log_target: bool) -> Self {
        self.log_target = log_target;
        self
    }

    /// Whether the mean divides by the size of the first axis alone (PyTorch's reduction `batchmean`). Default: false.
    /// It changes [`Reduction::Mean`](crate::Reduction::Mean) only.
    pub fn batch_mean(mut self, batch_mean: bool) -> Self {
        self.batch_mean = batch_mean;
        self
    }

    common_options!("Multiplies each element's loss; the mean's divisor does not depend on it.");

    fn mean(&self) -> MeanOver {
        if self.batch_mean {
            MeanOver::Batch
        } else {
            MeanOver::Elements
        }
    }

    /// The loss of log-probabilities `input` and `target`, two tensors of one shape and dtype (f32, f64, f16 or
    /// bf16): a scalar, or the input's shape without reduction. On devices without
    /// kernels of ours this is [`composed`](Self::composed).
    ///
    /// # Errors
    ///
    /// If target or weight do not fit the input in shape, dtype or device, the input is not a float tensor, or it has
    /// no first axis for the batch mean.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        if !has_kernels(input.device()) {
            return self.composed(input, target);
        }
        if self.log_target {
            self.options
                .fused(LogDivergence, input, target, None, self.mean())
        } else {
            self.options
                .fused(Divergence, input, target, None, self.mean())
        }
    }

    /// The same out of tensor ops, with candle's autograd. Where a target probability is 0, its gradient is 0 here.
    pub fn composed(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        self.options
            .reduce("kl_div", input, target, self.mean(), |x, t| {
                if self.log_target {
                    return composed::times(&t.exp()?, &(t - x)?);
                }
                let none = t.eq(0.0)?;
                let log = none.where_cond(&t.ones_like()?, t)?.log()?;
                composed::times(t, &(log - x)?)
            })
    }
}
