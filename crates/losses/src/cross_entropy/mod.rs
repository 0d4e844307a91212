//! Cross entropy of logits and class indices or class probabilities.
//!
//! With logits x of one row, x' = s tanh(a x / s) (logit scale a, softcap s), l = log softmax(x'), class weights w,
//! label smoothing e, C classes, target class y:
//!
//! - indices: L = -(1 - e) w_y l_y - (e/C) sum_c w_c l_c + k lse^2, exactly 0 where y is `ignore_index`;
//!   the mean divides the sum by the sum of w_y over the rows that are not ignored;
//! - probabilities t: L = -sum_c w_c ((1 - e) t_c + e/C) l_c + k lse^2; the mean divides by the number of rows.
//!
//! A coefficient of exactly 0 contributes 0, also where l_c is -inf. The formulas are PyTorch's
//! (`torch.nn.functional.cross_entropy`); z-loss k is PaLM's (Chowdhery et al. 2022), softcap Gemma 2's.
//!
//! Logits are (C), (N, C) or (N, C, d1, ...), in f32, f64, f16 or bf16 and of any layout; the losses come in f64 for f64
//! logits and in f32 for the others. Backward reads the logits again and one number a row that forward saved, the sum
//! of exp(x' - max x').

mod composed;
mod cpu_kernel;
#[cfg(feature = "cuda")]
mod cuda_kernel;
mod error;
mod fused;
mod outputs;
mod plan;
mod second_derivative;
#[cfg(test)]
mod tests;
mod value_and_grad;

use candle_core::{Result, Tensor};

pub use outputs::CrossEntropyOutput;

use crate::{EmptyPolicy, Reduction};
use plan::{Plan, TargetKind};

/// Mean cross entropy of `logits` (N, C), (C) or (N, C, d1, ...) and class indices `targets` (N), () or (N, d1, ...).
///
/// Takes the place of `candle_nn::loss::cross_entropy`, in one fused op. [`CrossEntropy`] has the options.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
///
/// # fn main() -> candle_core::Result<()> {
/// let logits = Var::new(&[[1.0f32, 2.0, 3.0], [1.0, 2.0, 3.0]], &Device::Cpu)?;
/// let targets = Tensor::new(&[2u32, 0], &Device::Cpu)?;
/// let loss = candle_losses::cross_entropy(&logits, &targets)?;
/// assert!((loss.to_scalar::<f32>()? - 1.4076059).abs() < 1e-6);
/// let gradients = loss.backward()?;
/// assert_eq!(gradients.get(&logits).unwrap().dims(), [2, 3]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`CrossEntropy::forward`].
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    CrossEntropy::new().forward(logits, targets)
}

/// Cross entropy with its options; see the [crate] for the numerics and [`cross_entropy`] for the plain case.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::{CrossEntropy, Reduction};
///
/// # fn main() -> candle_core::Result<()> {
/// let logits = Tensor::new(&[[1.0f32, 2.0, 3.0], [1.0, 2.0, 3.0]], &Device::Cpu)?;
/// let targets = Tensor::new(&[2i64, -100], &Device::Cpu)?;
/// let loss = CrossEntropy::new()
///     .label_smoothing(0.1)
///     .ignore_index(-100)
///     .reduction(Reduction::None)
///     .forward(&logits, &targets)?;
/// assert_eq!(loss.to_vec1::<f32>()?[1], 0.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct CrossEntropy {
    weight: Option<Tensor>,
    ignore_index: Option<i64>,
    label_smoothing: f64,
    reduction: Reduction,
    num_items: Option<f64>,
    z_loss: f64,
    softcap: Option<f64>,
    logit_scale: f64,
    on_empty: EmptyPolicy,
    validate_targets: bool,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl CrossEntropy {
    /// The mean of plain cross entropy: no weights, nothing ignored, no smoothing.
    pub fn new() -> Self {
        Self {
            weight: None,
            ignore_index: None,
            label_smoothing: 0.0,
            reduction: Reduction::Mean,
            num_items: None,
            z_loss: 0.0,
            softcap: None,
            logit_scale: 1.0,
            on_empty: EmptyPolicy::Nan,
            validate_targets: false,
        }
    }

    /// A weight for each class, shape (C), any float type. It is a constant: no gradient flows into it.
    pub fn weight(mut self, weight: Tensor) -> Self {
        self.weight = Some(weight.detach());
        self
    }

    /// Rows with this target have loss and gradient exactly 0, whatever their logits are, and do not count in the mean.
    /// May be negative or a class. Not for probabilities.
    pub fn ignore_index(mut self, index: i64) -> Self {
        self.ignore_index = Some(index);
        self
    }

    /// Mixes the targets with the uniform distribution, within [0, 1]; Szegedy et al. 2016.
    pub fn label_smoothing(mut self, smoothing: f64) -> Self {
        self.label_smoothing = smoothing;
        self
    }

    /// How the losses of the rows are put together; the mean unless set.
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    /// Divides the sum of the losses by this instead of what the mean divides by: with gradient accumulation, the
    /// number of items in all micro-batches together. Not for [`Reduction::None`].
    pub fn num_items(mut self, items: f64) -> Self {
        self.num_items = Some(items);
        self
    }

    /// Adds `coefficient` lse^2 to the loss of each row, lse being log sum_c exp(x'_c). Not scaled by the weights.
    pub fn z_loss(mut self, coefficient: f64) -> Self {
        self.z_loss = coefficient;
        self
    }

    /// Bounds the scaled logits smoothly: x' = s tanh(a x / s).
    pub fn softcap(mut self, cap: f64) -> Self {
        self.softcap = Some(cap);
        self
    }

    /// Multiplies the logits (an inverse temperature), before the softcap.
    pub fn logit_scale(mut self, scale: f64) -> Self {
        self.logit_scale = scale;
        self
    }

    /// What the mean is where there is nothing to average: no rows, all ignored, or total weight 0.
    pub fn on_empty(mut self, policy: EmptyPolicy) -> Self {
        self.on_empty = policy;
        self
    }

    /// Whether targets out of range are an error on devices where the check has to wait for the device. On the CPU
    /// they always are. Without it, such a row has loss NaN and gradient 0 there.
    pub fn validate_targets(mut self, validate: bool) -> Self {
        self.validate_targets = validate;
        self
    }

    /// The loss of `logits` (C), (N, C) or (N, C, d1, ...) and class indices `targets` (), (N) or (N, d1, ...) of type u8,
    /// u32, i16, i32 or i64: a scalar, or one loss a row, shaped like the targets, with [`Reduction::None`].
    ///
    /// One fused op: a read of the logits forward; a read and the write of the gradient backward.
    ///
    /// # Errors
    /// Arguments that do not fit are named with what was expected and what came; a target that is no class is
    /// named with its row, its value and the number of classes.
    pub fn forward(&self, logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
        fused::forward(
            Plan::new(self, logits, targets, TargetKind::Indices)?,
            logits,
            targets,
        )
    }

    /// The loss of `logits` and class `probabilities` of the same shape and type. Rows need not sum to 1. The
    /// probabilities get a gradient if they track one.
    ///
    /// # Errors
    /// As [`Self::forward`]; also where `ignore_index` is set.
    pub fn forward_probabilities(&self, logits: &Tensor, probabilities: &Tensor) -> Result<Tensor> {
        let plan = Plan::new(self, logits, probabilities, TargetKind::Probabilities)?;
        fused::forward(plan, logits, probabilities)
    }

    /// As [`Self::forward`] in Candle's tensor operations, with the gradient derived by autograd: slower, several
    /// times the memory, readable; the oracle of the fused form.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn composed(&self, logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
        composed::forward(
            &Plan::new(self, logits, targets, TargetKind::Indices)?,
            logits,
            targets,
        )
    }

    /// As [`Self::forward_probabilities`] in Candle's tensor operations; see [`Self::composed`].
    ///
    /// # Errors
    /// As [`Self::forward_probabilities`].
    pub fn composed_probabilities(
        &self,
        logits: &Tensor,
        probabilities: &Tensor,
    ) -> Result<Tensor> {
        let plan = Plan::new(self, logits, probabilities, TargetKind::Probabilities)?;
        composed::forward(&plan, logits, probabilities)
    }

    /// As [`Self::forward`], with what else the same pass over the logits knows.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_with_outputs(
        &self,
        logits: &Tensor,
        targets: &Tensor,
    ) -> Result<CrossEntropyOutput> {
        outputs::forward(
            Plan::new(self, logits, targets, TargetKind::Indices)?,
            logits,
            targets,
        )
    }

    /// The loss and its gradient with respect to the logits, in one pass over each row while it is in cache and
    /// outside Candle's graph, which adds zeros and an addition for each edge. With [`Reduction::None`] the gradient is
    /// that of the sum.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn value_and_grad(&self, logits: &Tensor, targets: &Tensor) -> Result<(Tensor, Tensor)> {
        value_and_grad::fresh(
            Plan::new(self, logits, targets, TargetKind::Indices)?,
            logits,
            targets,
        )
    }

    /// As [`Self::value_and_grad`] for class probabilities.
    ///
    /// # Errors
    /// As [`Self::forward_probabilities`].
    pub fn value_and_grad_probabilities(
        &self,
        logits: &Tensor,
        probabilities: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let plan = Plan::new(self, logits, probabilities, TargetKind::Probabilities)?;
        value_and_grad::fresh(plan, logits, probabilities)
    }

    /// As [`Self::value_and_grad`], with the gradient written over the logits: no memory beyond them. Everything that
    /// shares their storage (clones, views, detached tensors) sees the gradient afterwards.
    ///
    /// # Errors
    /// As [`Self::forward`]; also where the logits are a variable or part of a graph, whose backward might read them
    /// (give a `detach`ed tensor to say that it does not), or are broadcast. The logits are untouched by an error.
    pub fn value_and_grad_in_place(
        &self,
        logits: Tensor,
        targets: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        value_and_grad::in_place(
            Plan::new(self, &logits, targets, TargetKind::Indices)?,
            logits,
            targets,
        )
    }
}
