//! Whether candle keeps the graph of a gradient, for second derivatives.

use std::cell::Cell;

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

/// Makes our ops keep the graph on this thread. Candle itself still cuts it between its nodes, so this serves for
/// losses that are applied to variables directly.
#[cfg(test)]
pub(crate) fn keep_gradient_graph() {
    KEEPS.set(true);
}
