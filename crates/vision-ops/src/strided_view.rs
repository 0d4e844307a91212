//! Every n-th element along a dimension, as a differentiable tensor op.

use candle_core::{Result, Tensor};

/// Elements `start, start + step, ...` (`count` of them) along `dim`. Autograd sends the gradient back by `index_add`.
pub(crate) fn every_nth(
    tensor: &Tensor,
    dim: usize,
    start: usize,
    step: usize,
    count: usize,
) -> Result<Tensor> {
    let indices: Vec<u32> = (0..count).map(|i| (start + i * step) as u32).collect();
    let indices = Tensor::from_vec(indices, count, tensor.device())?;
    // `index_select` wants contiguous data.
    tensor.contiguous()?.index_select(&indices, dim)
}
