//! The yardstick of bandwidth: a copy from device memory to device memory that is already there.

use crate::timing::{Effort, Timing, measure};
use candle_core::{Device, Result};

/// Times a copy that moves `bytes` in all, half of them read and half of them written.
pub(crate) fn moving(bytes: usize, device: &Device, effort: &Effort) -> Result<Timing> {
    let cuda = device.as_cuda_device()?;
    let half = (bytes / 2).max(1);
    let from = cuda.alloc_zeros::<u8>(half)?;
    let mut to = cuda.alloc_zeros::<u8>(half)?;
    measure(device, effort, || cuda.memcpy_dtod(&from, &mut to))
}
