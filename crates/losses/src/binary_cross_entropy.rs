//! Binary cross entropy of logits.

#[cfg(feature = "cuda")]
use crate::pointwise::CudaKernels;
use crate::pointwise::options::{MeanOver, Options, check_broadcast, common_options, expand};
use crate::pointwise::{Element, Float, composed, has_kernels, times};
use candle_core::{Result, Tensor};

/// Binary cross entropy of logits with default options; see [`BinaryCrossEntropyWithLogits`].
pub fn binary_cross_entropy_with_logits(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    BinaryCrossEntropyWithLogits::new().forward(logits, targets)
}

/// Binary cross entropy between the probability sigmoid(x) and a target probability z (PyTorch's
/// `binary_cross_entropy_with_logits`).
///
/// With p the `pos_weight` (1 if none): (1 - z) softplus(x) + p z softplus(-x), where
/// softplus(x) = ln(1 + exp(x)) = max(x, 0) + ln(1 + exp(-|x|)). Both terms are positive for z in [0, 1], so nothing
/// cancels, and nothing overflows: at x = 1000 the loss is 0 or 1000. A term whose factor is 0 is 0, so a logit of
/// +inf gives 0 for z = 1 and +inf for z = 0, never NaN.
///
/// Gradient: (1 - z) sigmoid(x) - p z sigmoid(-x), finite everywhere. For the target: p softplus(-x) - softplus(x).
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use candle_losses::{BinaryCrossEntropyWithLogits, Reduction};
/// # fn main() -> candle_core::Result<()> {
/// let logits = Var::new(&[0.0f32, 1000.0, -1000.0, f32::INFINITY], &Device::Cpu)?;
/// let targets = Tensor::new(&[1.0f32, 0.0, 0.0, 1.0], &Device::Cpu)?;
/// let bce = BinaryCrossEntropyWithLogits::new().reduction(Reduction::None);
/// let loss = bce.forward(&logits, &targets)?;
/// assert_eq!(loss.to_vec1::<f32>()?, [std::f32::consts::LN_2, 1000.0, 0.0, 0.0]);
/// let gradient = loss.sum_all()?.backward()?.get(&logits).unwrap().to_vec1::<f32>()?;
/// assert_eq!(gradient, [-0.5, 1.0, 0.0, 0.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct BinaryCrossEntropyWithLogits {
    pos_weight: Option<Tensor>,
    options: Options,
}

const NAME: &str = "binary_cross_entropy_with_logits";

/// The parameter p is the weight of the positive term.
#[derive(Clone, Copy, Debug)]
struct LogitsError;

impl Element for LogitsError {
    fn name(&self) -> &'static str {
        NAME
    }
    #[cfg(feature = "cuda")]
    fn cuda_kernels(&self) -> Option<CudaKernels> {
        let ptx = crate::cuda_kernel::ptx::BINARY_CROSS_ENTROPY;
        let kernels = CudaKernels::new(
            "candle_losses_binary_cross_entropy",
            ptx,
            "binary_cross_entropy",
        );
        Some(kernels)
    }
    #[inline(always)]
    fn value<F: Float>(&self, x: F, z: F, p: F) -> F {
        let zero = F::of(0.0);
        // The part that softplus(x) and softplus(-x) share.
        let tail = (-x.abs()).exp().ln_1p();
        times(F::of(1.0) - z, x.max(zero) + tail) + times(p * z, (-x).max(zero) + tail)
    }
    #[inline(always)]
    fn derivative<F: Float>(&self, x: F, z: F, p: F) -> F {
        // Both sigmoids out of one exp, each with all its digits.
        let e = (-x.abs()).exp();
        let near_one = F::of(1.0) / (F::of(1.0) + e);
        let near_zero = e * near_one;
        let negative = x < F::of(0.0);
        let up = if negative { near_zero } else { near_one };
        let down = if negative { near_one } else { near_zero };
        (F::of(1.0) - z) * up - p * z * down
    }
    #[inline(always)]
    fn target_derivative<F: Float>(&self, x: F, _z: F, p: F) -> F {
        let zero = F::of(0.0);
        let tail = (-x.abs()).exp().ln_1p();
        times(p, (-x).max(zero)) - x.max(zero) + (p - F::of(1.0)) * tail
    }
}

impl BinaryCrossEntropyWithLogits {
    /// Mean reduction, no weights.
    pub fn new() -> Self {
        Self::default()
    }

    /// Multiplies the positive term, to weigh recall against precision.
    ///
    /// A constant with the logits' dtype and a shape that broadcasts to theirs, for example (C) for (N, C); it
    /// receives no gradient.
    pub fn pos_weight(mut self, pos_weight: Tensor) -> Self {
        self.pos_weight = Some(pos_weight);
        self
    }

    common_options!(
        "Multiplies each element's loss; the mean still divides by the number of elements."
    );

    fn check(&self, logits: &Tensor) -> Result<()> {
        match &self.pos_weight {
            Some(pos_weight) => Ok(check_broadcast(NAME, "pos_weight", pos_weight, logits)?),
            None => Ok(()),
        }
    }

    /// The loss of `logits` and target probabilities, two tensors of one shape and dtype (f32, f64, f16 or bf16): a
    /// scalar, or the logits' shape without reduction. On devices without
    /// kernels of ours this is [`composed`](Self::composed).
    ///
    /// # Errors
    ///
    /// If targets, weight or pos_weight do not fit the logits in shape, dtype or device, or the logits are not a
    /// float tensor.
    pub fn forward(&self, logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
        if !has_kernels(logits.device()) {
            return self.composed(logits, targets);
        }
        self.check(logits)?;
        let pos_weight = self.pos_weight.as_ref();
        self.options
            .fused(LogitsError, logits, targets, pos_weight, MeanOver::Elements)
    }

    /// The same out of tensor ops, with candle's autograd. At infinite logits the gradient for the targets is NaN.
    pub fn composed(&self, logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
        self.check(logits)?;
        let mean = MeanOver::Elements;
        self.options.reduce(NAME, logits, targets, mean, |x, z| {
            let negative = composed::times(&z.affine(-1.0, 1.0)?, &composed::softplus(x)?)?;
            let weighted = match &self.pos_weight {
                Some(p) => z.mul(&composed::widen(&expand(p, logits)?)?)?,
                None => z.clone(),
            };
            negative + composed::times(&weighted, &composed::softplus(&x.neg()?)?)?
        })
    }
}
