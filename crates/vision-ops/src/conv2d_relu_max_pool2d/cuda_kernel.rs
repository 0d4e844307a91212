//! The fused op on CUDA: the convolution's product without its bias, then `conv2d_relu_max_pool2d.cu`.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaStorage, Layout, Result, Tensor};

use super::Geometry;
use crate::conv2d::cuda_kernel as convolution;
use crate::cuda_kernel::{
    Argument, Element, Module, OnDevice, channel_sums, contiguous, for_element, room, thread_each,
};
use crate::max_pool2d::cuda_kernel::PoolSizes;

/// The result, row-major, and the winner of each window, of contiguous tensors.
pub(super) fn forward(
    geometry: &Geometry,
    x: (&CudaStorage, &Layout),
    weight: (&CudaStorage, &Layout),
    bias: (&CudaStorage, &Layout),
) -> Result<(CudaStorage, CudaSlice<u8>)> {
    let map = convolution::forward(&geometry.conv, x, weight, None)?;
    for_element!(map.dtype(), super::OP, T => launch_forward::<T>(geometry, &map, bias))
}

fn launch_forward<T: Element>(
    geometry: &Geometry,
    map: &CudaStorage,
    bias: (&CudaStorage, &Layout),
) -> Result<(CudaStorage, CudaSlice<u8>)> {
    let device = map.device();
    let sizes = PoolSizes::new(geometry.conv.out_channels, &geometry.pool)?;
    let windows = geometry.conv.batch * geometry.conv.out_channels * geometry.pooled();
    let kernel = format!("relu_max_pool2d_forward_{}", T::NAME);
    let (map, bias) = (map.as_cuda_slice::<T>()?, contiguous::<T>(bias.0, bias.1)?);
    // SAFETY: the kernel writes every window's result and winner.
    let (y, winners) = unsafe { (room::<T>(device, windows)?, room::<u8>(device, windows)?) };
    let config = thread_each(windows)?;
    let windows = windows as u64;
    let arguments: [&dyn Argument; 6] = [map, &bias, &y, &winners, &sizes, &windows];
    // SAFETY: `relu_max_pool2d_forward(const T* map, const T* bias, T* y, uint8_t* winners, PoolSizes, uint64_t windows)`, 256
    // threads a block, a thread a window; `Geometry` made the pooling's sizes from those of the map and checked the bias.
    unsafe { Module::Conv2dReluMaxPool2d.launch(device, &kernel, config, &arguments) }?;
    Ok((CudaStorage::wrap_cuda_slice(y, device.clone()), winners))
}

/// The gradients of `x`, `weight` and `bias`, those that are tracked.
pub(super) fn backward(
    geometry: &Geometry,
    winners: &CudaSlice<u8>,
    [x, weight, bias]: [&Tensor; 3],
    result: &Tensor,
    upstream: &Tensor,
) -> Result<[Option<Tensor>; 3]> {
    let conv = &geometry.conv;
    if conv.batch * conv.output_len() == 0 {
        let zeros = |tensor: &Tensor| tensor.track_op().then(|| tensor.zeros_like()).transpose();
        return Ok([zeros(x)?, zeros(weight)?, zeros(bias)?]);
    }
    let op = OnDevice::new(
        super::OP,
        |upstream: (&CudaStorage, &Layout), result: (&CudaStorage, &Layout)| {
            let map = for_element!(upstream.0.dtype(), super::OP, T => launch_backward::<T>(geometry, winners, result, upstream))?;
            Ok((map, conv.result_shape()))
        },
    );
    let map = op.of_both(&upstream.contiguous()?, &result.contiguous()?)?;
    let tracked = |tensor: &Tensor| tensor.track_op();
    Ok([
        tracked(x)
            .then(|| convolution::backward_input(conv, weight, &map))
            .transpose()?,
        tracked(weight)
            .then(|| convolution::backward_weight(conv, x, &map))
            .transpose()?,
        tracked(bias)
            .then(|| channel_sums(&map, conv.batch, conv.out_channels, conv.positions()))
            .transpose()?,
    ])
}

/// The gradient of the map before bias, relu and pooling.
fn launch_backward<T: Element>(
    geometry: &Geometry,
    winners: &CudaSlice<u8>,
    result: (&CudaStorage, &Layout),
    upstream: (&CudaStorage, &Layout),
) -> Result<CudaStorage> {
    let device = upstream.0.device();
    let sizes = PoolSizes::new(geometry.conv.out_channels, &geometry.pool)?;
    let elements = geometry.conv.batch * geometry.conv.output_len();
    let kernel = format!("relu_max_pool2d_backward_{}", T::NAME);
    let (result, upstream) = (
        contiguous::<T>(result.0, result.1)?,
        contiguous::<T>(upstream.0, upstream.1)?,
    );
    // SAFETY: the kernel writes every element.
    let gradient = unsafe { room::<T>(device, elements)? };
    let config = thread_each(elements)?;
    let elements = elements as u64;
    let arguments: [&dyn Argument; 6] = [&upstream, &result, winners, &gradient, &sizes, &elements];
    // SAFETY: `relu_max_pool2d_backward(const T* upstream, const T* y, const uint8_t* winners, T* gradient, PoolSizes, uint64_t
    // elements)`, 256 threads a block, a thread an element; result, upstream gradient and winners are those of forward.
    unsafe { Module::Conv2dReluMaxPool2d.launch(device, &kernel, config, &arguments) }?;
    Ok(CudaStorage::wrap_cuda_slice(gradient, device.clone()))
}
