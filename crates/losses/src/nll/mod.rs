//! Negative log-likelihood of log-probabilities: cross entropy without its log-softmax.

mod composed;
mod counted;
#[cfg(feature = "cuda")]
mod cuda_kernel;
mod fused;
mod plan;
#[cfg(test)]
mod tests;

use crate::pointwise::has_kernels;
use crate::{EmptyPolicy, Reduction};
use candle_core::{Result, Tensor};
use counted::Counted;
use fused::{Call, Pick};
use plan::Plan;

/// Negative log-likelihood with its default options; see [`Nll`].
pub fn nll(log_probabilities: &Tensor, targets: &Tensor) -> Result<Tensor> {
    Nll::new().forward(log_probabilities, targets)
}

/// Negative log-likelihood of log-probabilities and class indices (PyTorch's `nll_loss`).
///
/// L_n = -w_y l_y for log-probabilities l and target y of row n, and 0 where y is the ignored index, whatever the row
/// holds. The mean divides by the sum of w_y over the rows that count. Gradient: -w_y at y, 0 elsewhere, divided
/// alike. For logits use [`CrossEntropy`](crate::CrossEntropy), which takes their log-softmax on the way.
///
/// | log-probabilities | targets |
/// |---|---|
/// | (C) | () |
/// | (N, C) | (N) |
/// | (N, C, d1, ...) | (N, d1, ...) |
///
/// Log-probabilities are f32, f64, f16 or bf16 of any layout (the loss of f16 and bf16 is f32); targets u8, u32, i16,
/// i32 or i64.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use candle_losses::Nll;
/// # fn main() -> candle_core::Result<()> {
/// let probabilities = Tensor::new(&[[0.5f32, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]], &Device::Cpu)?;
/// let log_probabilities = Var::from_tensor(&probabilities.log()?)?;
/// let targets = Tensor::new(&[0i64, 1, -100], &Device::Cpu)?;
/// let loss = Nll::new().ignore_index(-100).forward(&log_probabilities, &targets)?;
/// assert!((loss.to_scalar::<f32>()? + (0.5f32.ln() + 0.8f32.ln()) / 2.0).abs() < 1e-6);
/// let gradients = loss.backward()?;
/// let gradient = gradients.get(&log_probabilities).unwrap().to_vec2::<f32>()?;
/// assert_eq!(gradient, [[-0.5, 0.0, 0.0], [0.0, -0.5, 0.0], [0.0, 0.0, 0.0]]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Nll {
    weight: Option<Tensor>,
    ignore_index: Option<i64>,
    reduction: Reduction,
    on_empty: EmptyPolicy,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    validate_targets: bool,
}

impl Nll {
    /// Mean reduction, no weight, nothing ignored.
    pub fn new() -> Self {
        Self::default()
    }

    /// One weight for each class: shape (C), the dtype of the log-probabilities. A constant; it receives no gradient.
    pub fn weight(mut self, weight: Tensor) -> Self {
        self.weight = Some(weight);
        self
    }

    /// The target of rows that do not count; it may be negative or a class. Default: none.
    pub fn ignore_index(mut self, ignore_index: i64) -> Self {
        self.ignore_index = Some(ignore_index);
        self
    }

    /// How the rows' losses are put together. Default: [`Reduction::Mean`].
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    /// What the mean is if no row counts or their weights sum to 0. Default: NaN, as in PyTorch. The gradient is 0
    /// either way.
    pub fn on_empty(mut self, on_empty: EmptyPolicy) -> Self {
        self.on_empty = on_empty;
        self
    }

    /// Whether targets out of range are an error on CUDA, where the check has to wait for the device. Elsewhere they
    /// always are. Without it, such a row has loss NaN and gradient 0 there and does not count in the mean's divisor.
    pub fn validate_targets(mut self, validate: bool) -> Self {
        self.validate_targets = validate;
        self
    }

    /// The loss: a scalar, or the targets' shape without reduction. A fused op on the CPU and, with the feature `cuda`,
    /// on NVIDIA GPUs, where nothing waits for the device unless [`validate_targets`](Self::validate_targets) asks for it;
    /// on other devices this is [`composed`](Self::composed).
    ///
    /// # Errors
    ///
    /// If shapes, dtypes or devices do not fit, or a target is neither a class nor the ignored index (on CUDA where
    /// [`validate_targets`](Self::validate_targets) asks for it).
    pub fn forward(&self, log_probabilities: &Tensor, targets: &Tensor) -> Result<Tensor> {
        if !has_kernels(log_probabilities.device()) {
            return self.composed(log_probabilities, targets);
        }
        let plan = Plan::new(self, log_probabilities, targets)?;
        log_probabilities.apply_op1(Pick::loss(Call::new(plan, targets)?))
    }

    /// The same out of tensor ops, with candle's autograd. Reads the targets on the host.
    ///
    /// # Errors
    ///
    /// If shapes, dtypes or devices do not fit, or a target is neither a class nor the ignored index.
    pub fn composed(&self, log_probabilities: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let plan = Plan::new(self, log_probabilities, targets)?;
        composed::nll(&Counted::new(plan, targets)?, log_probabilities)
    }
}
