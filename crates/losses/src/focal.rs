//! Sigmoid focal loss.

#[cfg(feature = "cuda")]
use crate::pointwise::CudaKernels;
use crate::pointwise::error::check_number;
use crate::pointwise::options::{MeanOver, Options, common_options};
use crate::pointwise::{Float, Pointwise, composed, has_kernels, times};
use candle_core::{Result, Tensor};

/// Sigmoid focal loss with alpha 0.25, gamma 2 and mean reduction; see [`Focal`].
pub fn focal(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    Focal::new().forward(logits, targets)
}

/// Sigmoid focal loss: binary cross entropy that turns from the easy examples to the hard ones.
///
/// Of Lin et al., "Focal Loss for Dense Object Detection" (2017), as in torchvision's `sigmoid_focal_loss`. With
/// q = sigmoid(x) and target t: s = q (1 - t) + (1 - q) t is the probability of the wrong answer, and the loss is
/// a s^gamma bce(x, t) with a = alpha t + (1 - alpha)(1 - t), or a = 1 with [`no_alpha`](Self::no_alpha).
/// For gamma 0 and no alpha it is [binary cross entropy](crate::BinaryCrossEntropyWithLogits).
///
/// Gradient: a (s^gamma (q - t) + gamma s^(gamma - 1) q (1 - q)(1 - 2t) bce(x, t)), without overflow at any logit.
///
/// Unlike torchvision, whose default is no reduction, the default here is the mean, as for every loss of this crate.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::{Focal, binary_cross_entropy_with_logits};
/// # fn main() -> candle_core::Result<()> {
/// let logits = Tensor::new(&[0.5f64, -2.0, 30.0], &Device::Cpu)?;
/// let targets = Tensor::new(&[1.0f64, 1.0, 1.0], &Device::Cpu)?;
/// let plain = Focal::new().gamma(0.0).no_alpha().forward(&logits, &targets)?;
/// let bce = binary_cross_entropy_with_logits(&logits, &targets)?;
/// assert!((plain.to_scalar::<f64>()? - bce.to_scalar::<f64>()?).abs() < 1e-15);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Focal {
    alpha: Option<f64>,
    gamma: f64,
    options: Options,
}

/// Squared says that gamma is 2, the usual one: a call of powf would keep the loop from becoming vector code.
#[derive(Clone, Copy, Debug)]
struct FocalError<const SQUARED: bool> {
    alpha: Option<f64>,
    gamma: f64,
}

/// sigmoid(x), sigmoid(-x) and the binary cross entropy, out of one exp.
#[inline(always)]
fn parts<F: Float>(x: F, t: F) -> (F, F, F) {
    let (zero, one) = (F::of(0.0), F::of(1.0));
    let (q, not_q) = (x.sigmoid(), (-x).sigmoid());
    let tail = (-x.abs()).exp().ln_1p();
    let bce = times(one - t, x.max(zero) + tail) + times(t, (-x).max(zero) + tail);
    (q, not_q, bce)
}

impl<const SQUARED: bool> FocalError<SQUARED> {
    #[inline(always)]
    fn balance<F: Float>(&self, t: F) -> F {
        match self.alpha {
            Some(alpha) => F::of(alpha) * t + F::of(1.0 - alpha) * (F::of(1.0) - t),
            None => F::of(1.0),
        }
    }

    #[inline(always)]
    fn power<F: Float>(&self, s: F) -> F {
        if SQUARED { s * s } else { s.powf(self.gamma) }
    }

    /// `d (s^gamma) / ds * m`, where m is a derivative of s; it goes to 0 with m.
    #[inline(always)]
    fn power_derivative<F: Float>(&self, s: F, m: F) -> F {
        if SQUARED {
            F::of(2.0) * s * m
        } else if self.gamma == 0.0 {
            F::of(0.0)
        } else {
            times(m, F::of(self.gamma) * s.powf(self.gamma - 1.0))
        }
    }
}

impl<const SQUARED: bool> Pointwise for FocalError<SQUARED> {
    fn name(&self) -> &'static str {
        "focal"
    }
    #[cfg(feature = "cuda")]
    fn cuda_kernels(&self) -> Option<CudaKernels> {
        let ptx = crate::cuda_kernel::ptx::FOCAL;
        let kernels = CudaKernels::new("candle_losses_focal", ptx, "focal");
        Some(kernels.constants([self.alpha.unwrap_or(f64::NAN), self.gamma]))
    }
    #[inline(always)]
    fn value<F: Float>(&self, x: F, t: F) -> F {
        let (q, not_q, bce) = parts(x, t);
        let s = q * (F::of(1.0) - t) + not_q * t;
        self.balance(t) * times(self.power(s), bce)
    }
    #[inline(always)]
    fn derivative<F: Float>(&self, x: F, t: F) -> F {
        let one = F::of(1.0);
        let (q, not_q, bce) = parts(x, t);
        let s = q * (one - t) + not_q * t;
        let bce_slope = (one - t) * q - t * not_q;
        let s_slope = q * not_q * (one - F::of(2.0) * t);
        let outer = self.power_derivative(s, s_slope);
        self.balance(t) * (self.power(s) * bce_slope + times(outer, bce))
    }
    #[inline(always)]
    fn target_derivative<F: Float>(&self, x: F, t: F) -> F {
        let (q, not_q, bce) = parts(x, t);
        let s = q * (F::of(1.0) - t) + not_q * t;
        let power = self.power(s);
        let balance_slope = match self.alpha {
            Some(alpha) => F::of(2.0 * alpha - 1.0),
            None => F::of(0.0),
        };
        // softplus(-x) - softplus(x) = -x, and d s / d t = sigmoid(-x) - sigmoid(x).
        let inner = times(power, -x) + times(self.power_derivative(s, not_q - q), bce);
        self.balance(t) * inner + balance_slope * times(power, bce)
    }
}

impl Default for Focal {
    fn default() -> Self {
        Self::new()
    }
}

impl Focal {
    /// Alpha 0.25, gamma 2, mean reduction, no weight.
    pub fn new() -> Self {
        Self {
            alpha: Some(0.25),
            gamma: 2.0,
            options: Options::default(),
        }
    }

    /// The share of positives: they weigh alpha, negatives 1 - alpha; in [0, 1]. Default: 0.25.
    pub fn alpha(mut self, alpha: f64) -> Self {
        self.alpha = Some(alpha);
        self
    }

    /// Positives and negatives weigh 1 each (torchvision's negative alpha).
    pub fn no_alpha(mut self) -> Self {
        self.alpha = None;
        self
    }

    /// How strongly easy examples are weighed down; finite and at least 0. Default: 2.
    pub fn gamma(mut self, gamma: f64) -> Self {
        self.gamma = gamma;
        self
    }

    common_options!(
        "Multiplies each element's loss; the mean still divides by the number of elements."
    );

    fn check(&self) -> Result<()> {
        let advice = "0 is binary cross entropy, 2 is usual";
        let fits = self.gamma >= 0.0;
        check_number(
            "focal",
            "gamma",
            self.gamma,
            "be finite and not below 0",
            fits,
            advice,
        )?;
        if let Some(alpha) = self.alpha {
            let fits = (0.0..=1.0).contains(&alpha);
            let advice = "use `no_alpha` to weigh positives and negatives alike";
            check_number("focal", "alpha", alpha, "lie in [0, 1]", fits, advice)?;
        }
        Ok(())
    }

    /// The loss of `logits` and target probabilities, two tensors of one shape and dtype (f32, f64, f16 or bf16): a
    /// scalar, or the logits' shape without reduction. On devices without
    /// kernels of ours this is [`composed`](Self::composed).
    ///
    /// # Errors
    ///
    /// If targets or weight do not fit the logits in shape, dtype or device, the logits are not a float tensor, or
    /// alpha or gamma are out of their range.
    pub fn forward(&self, logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
        if !has_kernels(logits.device()) {
            return self.composed(logits, targets);
        }
        self.check()?;
        let Self { alpha, gamma, .. } = *self;
        let mean = MeanOver::Elements;
        if gamma == 2.0 {
            let function = FocalError::<true> { alpha, gamma };
            self.options.fused(function, logits, targets, None, mean)
        } else {
            let function = FocalError::<false> { alpha, gamma };
            self.options.fused(function, logits, targets, None, mean)
        }
    }

    /// The same out of tensor ops, with candle's autograd.
    pub fn composed(&self, logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
        self.check()?;
        let mean = MeanOver::Elements;
        self.options.reduce("focal", logits, targets, mean, |x, t| {
            let not_t = t.affine(-1.0, 1.0)?;
            let negative = composed::times(&not_t, &composed::softplus(x)?)?;
            let bce = (negative + composed::times(t, &composed::softplus(&x.neg()?)?)?)?;
            let wrong = not_t.mul(&composed::sigmoid(x)?)?;
            let s = (wrong + t.mul(&composed::sigmoid(&x.neg()?)?)?)?;
            let loss = match self.gamma {
                0.0 => bce,
                1.0 => s.mul(&bce)?,
                2.0 => s.sqr()?.mul(&bce)?,
                gamma => s.powf(gamma)?.mul(&bce)?,
            };
            match self.alpha {
                Some(alpha) => loss.mul(&t.affine(2.0 * alpha - 1.0, 1.0 - alpha)?),
                None => Ok(loss),
            }
        })
    }
}
