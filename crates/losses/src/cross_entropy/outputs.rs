//! What the pass over the logits knows beside the loss.

use candle_core::{Result, Tensor};

use super::fused::CrossEntropyOp;
use super::plan::Plan;
use crate::Reduction;

/// The result of [`super::CrossEntropy::forward_with_outputs`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CrossEntropyOutput {
    /// The loss, as of [`super::CrossEntropy::forward`].
    pub loss: Tensor,
    /// log sum_c exp(x'_c) of each row, ignored rows included, shaped like the targets. Differentiable: its gradient is
    /// softmax(x').
    pub lse: Tensor,
    /// log softmax(x')_y of each row, 0 in ignored rows, shaped like the targets, without weights or smoothing.
    /// Differentiable.
    pub target_log_prob: Tensor,
    /// The first class of the largest x' of each row, NaN left out, u32, shaped like the targets.
    pub argmax: Tensor,
    /// The number of rows that are not ignored and whose argmax is the target.
    pub correct: usize,
}

pub(super) fn forward(plan: Plan, logits: &Tensor, targets: &Tensor) -> Result<CrossEntropyOutput> {
    let rows = plan.geometry.rows();
    let shape = plan.geometry.row_shape.clone();
    let loss_shape = plan.loss_shape().to_vec();
    let losses = if plan.options.reduction == Reduction::None {
        rows
    } else {
        1
    };
    let op = CrossEntropyOp::new(plan, logits, targets, true);
    let saved = op.saved.clone();
    let values = logits.apply_op2(targets, op)?;
    let part =
        |first: usize, len: usize, shape: &[usize]| values.narrow(0, first, len)?.reshape(shape);
    let saved = saved
        .get()
        .ok_or_else(|| candle_core::Error::msg("cross_entropy: forward saved nothing").bt())?;
    let argmax = saved
        .argmax
        .as_ref()
        .ok_or_else(|| candle_core::Error::msg("cross_entropy: forward saved no argmax").bt())?;
    Ok(CrossEntropyOutput {
        loss: part(0, losses, &loss_shape)?,
        lse: part(losses, rows, &shape)?,
        target_log_prob: part(losses + rows, rows, &shape)?,
        argmax: argmax.reshape(shape)?,
        correct: saved.correct,
    })
}
