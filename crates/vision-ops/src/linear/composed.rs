//! The dense layer out of Candle's tensor ops: the readable form, and the oracle of the custom op.

use candle_core::{Result, Tensor};

use crate::relu;

/// As [`crate::linear()`], from `matmul`, `broadcast_add` and `where_cond`; autograd derives the gradient.
///
/// # Errors
///
/// As [`crate::linear()`].
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, relu: bool) -> Result<Tensor> {
    let sizes = super::check(x, weight, bias)?;
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = sizes.outputs;
    }
    // On CUDA candle multiplies by contiguous matrices and their transposes alone.
    let mut y = x
        .reshape((sizes.rows, sizes.inputs))?
        .matmul(&weight.contiguous()?.t()?)?;
    if let Some(bias) = bias {
        y = y.broadcast_add(bias)?;
    }
    if relu {
        y = relu::relu(&y)?;
    }
    y.reshape(shape)
}
