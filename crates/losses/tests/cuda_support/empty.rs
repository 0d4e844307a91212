//! Tensors without elements.

use candle_core::{DType, Device, Result, Tensor};

/// A tensor without elements: CUDA allocates no 0 bytes, so it is cut from one that has some.
pub(crate) fn empty(dims: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    let some: Vec<usize> = dims.iter().map(|&dim| dim.max(1)).collect();
    let mut x = Tensor::ones(some, dtype, device)?;
    for (axis, &dim) in dims.iter().enumerate() {
        x = x.narrow(axis, 0, dim)?;
    }
    Ok(x)
}
