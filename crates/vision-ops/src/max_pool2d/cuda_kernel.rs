//! Launching `max_pool2d.cu`.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DeviceRepr};
use candle_core::{CudaStorage, Layout, Result};

use super::PoolGeometry;
use crate::cuda_kernel::{
    Argument, Element, Module, contiguous, for_element, plain_argument, room, small, thread_each,
};

/// `PoolSizes` of `windows.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolSizes {
    channels: u32,
    height: u32,
    width: u32,
    rows: u32,
    columns: u32,
    kernel_rows: u32,
    kernel_columns: u32,
    stride_rows: u32,
    stride_columns: u32,
}

// SAFETY: nine numbers of 32 bits in C's order, as the kernels take them.
unsafe impl DeviceRepr for PoolSizes {}

impl PoolSizes {
    pub(crate) fn new(channels: usize, geometry: &PoolGeometry) -> Result<Self> {
        Ok(Self {
            channels: small(channels)?,
            height: small(geometry.input.0)?,
            width: small(geometry.input.1)?,
            rows: small(geometry.output.0)?,
            columns: small(geometry.output.1)?,
            kernel_rows: small(geometry.kernel.0)?,
            kernel_columns: small(geometry.kernel.1)?,
            // A stride beyond 2^32 has one window, which every stride gives.
            stride_rows: small(geometry.stride.0.min(geometry.input.0.max(1)))?,
            stride_columns: small(geometry.stride.1.min(geometry.input.1.max(1)))?,
        })
    }
}

/// `PlaneStrides` of `windows.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct PlaneStrides {
    image: u64,
    channel: u64,
    row: u64,
    column: u64,
}

// SAFETY: four numbers of 64 bits in C's order, as the kernels take them.
unsafe impl DeviceRepr for PlaneStrides {}

plain_argument!(PoolSizes, PlaneStrides);

/// The winner of each window on the device, row-major, as an index inside the window.
pub(super) enum Winners {
    U8(CudaSlice<u8>),
    U32(CudaSlice<u32>),
}

/// What keeps a window's index: bytes where they are enough.
trait WindowIndex: CudaDType + DeviceRepr {
    const NAME: &'static str;
}
impl WindowIndex for u8 {
    const NAME: &'static str = "u8";
}
impl WindowIndex for u32 {
    const NAME: &'static str = "u32";
}

/// Maxima of (N, C, rows, columns), row-major, and the winners where they are asked for. `x` may have any layout.
pub(super) fn forward(
    x: &CudaStorage,
    layout: &Layout,
    geometry: &PoolGeometry,
    keep_winners: bool,
) -> Result<(CudaStorage, Option<Winners>)> {
    for_element!(x.dtype(), super::OP, T => {
        if geometry.window() <= 0x100 {
            let (y, winners) = launch_forward::<T, u8>(x, layout, geometry, keep_winners)?;
            Ok((y, winners.map(Winners::U8)))
        } else {
            let (y, winners) = launch_forward::<T, u32>(x, layout, geometry, keep_winners)?;
            Ok((y, winners.map(Winners::U32)))
        }
    })
}

fn launch_forward<T: Element, I: WindowIndex>(
    x: &CudaStorage,
    layout: &Layout,
    geometry: &PoolGeometry,
    keep_winners: bool,
) -> Result<(CudaStorage, Option<CudaSlice<I>>)> {
    let (batch, channels, _, _) = layout.shape().dims4()?;
    let &[image, channel, row, column] = layout.stride() else {
        unreachable!("four dimensions have four strides")
    };
    let strides = PlaneStrides {
        image: image as u64,
        channel: channel as u64,
        row: row as u64,
        column: column as u64,
    };
    let sizes = PoolSizes::new(channels, geometry)?;
    let windows = batch * channels * geometry.output.0 * geometry.output.1;
    let device = x.device();
    let kernel = format!("max_pool2d_forward_{}_{}", T::NAME, I::NAME);
    let x = x.as_cuda_slice::<T>()?.slice(layout.start_offset()..);
    // SAFETY: the kernel writes every window's maximum.
    let y = unsafe { room::<T>(device, windows)? };
    let winners = match keep_winners {
        // SAFETY: and its winner.
        true => Some(unsafe { room::<I>(device, windows)? }),
        false => None,
    };
    let config = thread_each(windows)?;
    let windows = windows as u64;
    let arguments: [&dyn Argument; 6] = [&x, &y, &winners, &strides, &sizes, &windows];
    // SAFETY: `max_pool2d_forward(const T* x, T* y, Index* winners, PlaneStrides, PoolSizes, uint64_t windows)`, 256 threads a
    // block, a thread a window; the layout is that of `x`, whose elements it stays within, and `PoolGeometry` has checked
    // that the last window ends inside a plane.
    unsafe { Module::MaxPool2d.launch(device, &kernel, config, &arguments) }?;
    Ok((CudaStorage::wrap_cuda_slice(y, device.clone()), winners))
}

/// The gradient of the input, row-major, from that of the result and the winners.
pub(super) fn backward(
    upstream: &CudaStorage,
    layout: &Layout,
    winners: &Winners,
    geometry: &PoolGeometry,
) -> Result<CudaStorage> {
    for_element!(upstream.dtype(), super::OP, T => match winners {
        Winners::U8(winners) => launch_backward::<T, u8>(upstream, layout, winners, geometry),
        Winners::U32(winners) => launch_backward::<T, u32>(upstream, layout, winners, geometry),
    })
}

fn launch_backward<T: Element, I: WindowIndex>(
    upstream: &CudaStorage,
    layout: &Layout,
    winners: &CudaSlice<I>,
    geometry: &PoolGeometry,
) -> Result<CudaStorage> {
    let (batch, channels, _, _) = layout.shape().dims4()?;
    let sizes = PoolSizes::new(channels, geometry)?;
    let elements = batch * channels * geometry.input.0 * geometry.input.1;
    let device = upstream.device();
    let kernel = format!("max_pool2d_backward_{}_{}", T::NAME, I::NAME);
    let upstream = contiguous::<T>(upstream, layout)?;
    // SAFETY: the kernel writes every element.
    let gradient = unsafe { room::<T>(device, elements)? };
    let config = thread_each(elements)?;
    let elements = elements as u64;
    let arguments: [&dyn Argument; 5] = [&upstream, winners, &gradient, &sizes, &elements];
    // SAFETY: `max_pool2d_backward(const T* upstream, const Index* winners, T* gradient, PoolSizes, uint64_t elements)`, 256
    // threads a block, a thread an element; the upstream gradient has the result's shape, for which forward made the
    // winners.
    unsafe { Module::MaxPool2d.launch(device, &kernel, config, &arguments) }?;
    Ok(CudaStorage::wrap_cuda_slice(gradient, device.clone()))
}
