//! Launching `channels.cu`.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::LaunchConfig;
use candle_core::{CudaStorage, Layout, Result, Tensor};

use super::{
    Argument, Element, Module, OnDevice, contiguous, for_element, room, small, thread_each,
};

/// Adds the bias of each channel to `y`, row-major of (outer, channels, inner), then applies relu where asked for, in place.
pub(crate) fn bias_relu(
    y: &mut CudaStorage,
    bias: Option<(&CudaStorage, &Layout)>,
    channels: usize,
    inner: usize,
    relu: bool,
) -> Result<()> {
    for_element!(y.dtype(), "bias", T => launch_bias_relu::<T>(y, bias, channels, inner, relu))
}

fn launch_bias_relu<T: Element>(
    y: &mut CudaStorage,
    bias: Option<(&CudaStorage, &Layout)>,
    channels: usize,
    inner: usize,
    relu: bool,
) -> Result<()> {
    let bias = bias.map(|(s, l)| contiguous::<T>(s, l)).transpose()?;
    let device = y.device().clone();
    let kernel = format!("bias_relu_{}", T::NAME);
    let y = y.as_cuda_slice_mut::<T>()?;
    let elements = y.len();
    let (channels, inner, relu) = (small(channels)?, small(inner)?, u32::from(relu));
    let config = thread_each(elements)?;
    let elements = elements as u64;
    let arguments: [&dyn Argument; 6] = [y, &bias, &channels, &inner, &relu, &elements];
    // SAFETY: `bias_relu(T* y, const T* bias, uint32_t channels, uint32_t inner, uint32_t relu, uint64_t elements)`, 256
    // threads a block, a thread each of the `elements` of `y`; the index into `bias` is below `channels`, its length, which
    // the caller checked.
    unsafe { Module::Channels.launch(&device, &kernel, config, &arguments) }
}

/// `upstream`, and 0 where `result` is 0 or less.
pub(crate) fn through_relu(result: &Tensor, upstream: &Tensor) -> Result<Tensor> {
    let op = OnDevice::new(
        "relu-gradient",
        |result: (&CudaStorage, &Layout), upstream: (&CudaStorage, &Layout)| {
            let storage = for_element!(result.0.dtype(), "relu", T => launch_through_relu::<T>(result, upstream))?;
            Ok((storage, result.1.shape().clone()))
        },
    );
    op.of_both(&result.contiguous()?, &upstream.contiguous()?)
}

fn launch_through_relu<T: Element>(
    result: (&CudaStorage, &Layout),
    upstream: (&CudaStorage, &Layout),
) -> Result<CudaStorage> {
    let device = result.0.device();
    let elements = result.1.shape().elem_count();
    let (result, upstream) = (
        contiguous::<T>(result.0, result.1)?,
        contiguous::<T>(upstream.0, upstream.1)?,
    );
    let kernel = format!("through_relu_{}", T::NAME);
    // SAFETY: the kernel writes every element.
    let gradient = unsafe { room::<T>(device, elements)? };
    let config = thread_each(elements)?;
    let elements = elements as u64;
    let arguments: [&dyn Argument; 4] = [&result, &upstream, &gradient, &elements];
    // SAFETY: `through_relu(const T* result, const T* upstream, T* gradient, uint64_t elements)`, 256 threads a block; the
    // upstream gradient has the result's shape, by candle's contract.
    unsafe { Module::Channels.launch(device, &kernel, config, &arguments) }?;
    Ok(CudaStorage::wrap_cuda_slice(gradient, device.clone()))
}

/// Elements of a channel that a block of the first stage takes, about.
const PART: usize = 1 << 13;

/// Sums over the first axis and the last of a tensor seen as (outer, channels, inner): a tensor of (channels).
pub(crate) fn channel_sums(
    x: &Tensor,
    outer: usize,
    channels: usize,
    inner: usize,
) -> Result<Tensor> {
    if channels == 0 || outer == 0 || inner == 0 {
        return Tensor::zeros(channels, x.dtype(), x.device());
    }
    let op = OnDevice::new("channel-sums", |x: (&CudaStorage, &Layout)| {
        let sums = for_element!(x.0.dtype(), "channel-sums", T => launch_channel_sums::<T>(x, outer, channels, inner))?;
        Ok((sums, channels.into()))
    });
    op.of(&x.contiguous()?)
}

fn launch_channel_sums<T: Element>(
    x: (&CudaStorage, &Layout),
    outer: usize,
    channels: usize,
    inner: usize,
) -> Result<CudaStorage> {
    let device = x.0.device();
    let x = contiguous::<T>(x.0, x.1)?;
    // The parts depend on sizes alone, and so do the bits.
    let part_outer = outer.div_ceil(256).max((PART / inner).max(1));
    let parts = outer.div_ceil(part_outer);
    // SAFETY: the first stage writes every part of every channel.
    let part_sums = unsafe { room::<T::Compute>(device, parts * channels)? };
    let kernel = format!("channel_part_sums_{}", T::NAME);
    let blocks = if inner == 1 {
        channels.div_ceil(32)
    } else {
        channels
    };
    let (few_channels, outer, inner, part_outer) = (
        small(channels)?,
        outer as u64,
        inner as u64,
        part_outer as u64,
    );
    let config = LaunchConfig {
        grid_dim: (small(blocks)?, parts as u32, 1),
        block_dim: (32, 8, 1),
        shared_mem_bytes: 0,
    };
    let arguments: [&dyn Argument; 6] =
        [&x, &part_sums, &outer, &few_channels, &inner, &part_outer];
    // SAFETY: `channel_part_sums(const T* x, Compute* part_sums, uint64_t outer, uint32_t channels, uint64_t inner, uint64_t
    // part_outer)`, (32, 8) threads a block, at most 256 parts along y, and along x what the kernel asks for.
    unsafe { Module::Channels.launch(device, &kernel, config, &arguments) }?;

    let kernel = format!("channel_sums_{}", T::NAME);
    // SAFETY: the second stage writes every channel.
    let sums = unsafe { room::<T>(device, channels)? };
    let parts = parts as u32;
    let arguments: [&dyn Argument; 4] = [&part_sums, &sums, &parts, &few_channels];
    let config = thread_each(channels)?;
    // SAFETY: `channel_sums(const Compute* part_sums, T* sums, uint32_t parts, uint32_t channels)`, 256 threads a block, a
    // thread a channel.
    unsafe { Module::Channels.launch(device, &kernel, config, &arguments) }?;
    Ok(CudaStorage::wrap_cuda_slice(sums, device.clone()))
}
