//! What candle's backward pass does with a gradient of ours: whether it keeps the graph, for second derivatives, and where it can
//! take none.

use std::cell::Cell;

use candle_core::{Result, Tensor};

use crate::pointwise::error::BadArgument;

thread_local! {
    /// Read once a thread, at its first backward pass, as candle does for its own ops.
    static KEEPS: Cell<bool> = Cell::new(
        std::env::var("CANDLE_GRAD_DO_NOT_DETACH").is_ok_and(|value| !value.is_empty() && value != "0"),
    );
}

/// Whether `CANDLE_GRAD_DO_NOT_DETACH` is set. Without it, a gradient that carried its graph along would only keep
/// its parts alive: candle cuts the graph at the next step.
pub(crate) fn keeps_gradient_graph() -> bool {
    KEEPS.get()
}

/// Refuses to go back to a tensor without elements on CUDA: candle would allocate 0 bytes for its gradient there, which the driver
/// takes for an invalid argument of its own and names nothing.
///
/// # Errors
/// Where candle could not take the gradient.
pub(crate) fn check_gradient_fits(
    loss: &'static str,
    argument: &'static str,
    tensor: &Tensor,
) -> Result<()> {
    if tensor.elem_count() > 0 || !tensor.device().is_cuda() || !tensor.track_op() {
        return Ok(());
    }
    Err(BadArgument {
        loss,
        argument,
        must: "have elements where its gradient is wanted on CUDA, since Candle cannot allocate one of none".to_owned(),
        got: format!("shape {:?}", tensor.dims()),
        advice: "leave out the empty batch, detach it, or take the loss on the CPU",
    }
    .into())
}

/// Makes our ops keep the graph on this thread. Candle itself still cuts it between its nodes, so this serves for
/// losses that are applied to variables directly.
#[cfg(test)]
pub(crate) fn keep_gradient_graph() {
    KEEPS.set(true);
}
