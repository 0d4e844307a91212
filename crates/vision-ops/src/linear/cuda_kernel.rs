//! The dense layer on CUDA: candle's matrix product (cuBLAS), then bias and relu in one pass over its result.

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{CudaStorage, Layout, Result, Shape, Tensor};

use super::Sizes;
use crate::cuda_kernel::{bias_relu, channel_sums, through_relu};

/// The result, row-major of (rows, outputs), of contiguous tensors.
pub(super) fn forward(
    sizes: Sizes,
    x: (&CudaStorage, &Layout),
    weight: (&CudaStorage, &Layout),
    bias: Option<(&CudaStorage, &Layout)>,
    relu: bool,
) -> Result<CudaStorage> {
    let Sizes {
        rows,
        inputs,
        outputs,
    } = sizes;
    let results = rows * outputs;
    let mut y = if results * inputs == 0 {
        // CUDA refuses to allocate nothing.
        let room = Shape::from(results.max(1));
        x.0.device().zeros_impl(&room, x.0.dtype())?
    } else {
        let x_layout = Layout::contiguous_with_offset((rows, inputs), x.1.start_offset());
        let weight_layout =
            Layout::contiguous_with_offset((outputs, inputs), weight.1.start_offset())
                .transpose(0, 1)?;
        let product = (1, rows, outputs, inputs);
        x.0.matmul(weight.0, product, &x_layout, &weight_layout)?
    };
    if results > 0 && (bias.is_some() || relu) {
        bias_relu(&mut y, bias, outputs, 1, relu)?;
    }
    Ok(y)
}

/// The gradients of `x`, `weight` and `bias`, those that are tracked.
pub(super) fn backward(
    sizes: Sizes,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    relu: Option<&Tensor>,
    upstream: &Tensor,
) -> Result<[Option<Tensor>; 3]> {
    let Sizes {
        rows,
        inputs,
        outputs,
    } = sizes;
    if rows * inputs * outputs == 0 {
        let zeros = |tensor: &Tensor| tensor.track_op().then(|| tensor.zeros_like()).transpose();
        return Ok([zeros(x)?, zeros(weight)?, bias.map_or(Ok(None), zeros)?]);
    }
    let upstream = match relu {
        Some(result) => through_relu(&result.detach(), &upstream.detach())?,
        None => upstream.detach().contiguous()?,
    }
    .reshape((rows, outputs))?;
    let mut grads = [None, None, None];
    if x.track_op() {
        let grad = upstream.matmul(&weight.detach().contiguous()?)?;
        grads[0] = Some(grad.reshape(x.shape())?);
    }
    if weight.track_op() {
        let x = x.detach().contiguous()?.reshape((rows, inputs))?;
        grads[1] = Some(upstream.t()?.matmul(&x)?);
    }
    if bias.is_some_and(Tensor::track_op) {
        grads[2] = Some(channel_sums(&upstream, rows, outputs, 1)?);
    }
    Ok(grads)
}
