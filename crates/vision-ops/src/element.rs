//! The element types that the computing ops take, and the devices that they have kernels for.

use candle_core::{DType, Device, WithDType};
use candle_simd::Float;

/// f32 or f64: what a kernel computes in and a tensor holds.
pub(crate) trait Element: Float + WithDType {}
impl Element for f32 {}
impl Element for f64 {}

/// The dtypes that the computing ops take on this device: those of [`Element`] on the CPU, half precision too on CUDA.
pub(crate) fn dtypes(device: &Device) -> &'static [DType] {
    if cfg!(feature = "cuda") && device.is_cuda() {
        &[DType::F32, DType::F64, DType::F16, DType::BF16]
    } else {
        &[DType::F32, DType::F64]
    }
}

/// Whether the custom ops run on this device; the composed forms run on every one.
pub(crate) fn has_kernels(device: &Device) -> bool {
    device.is_cpu() || (cfg!(feature = "cuda") && device.is_cuda())
}
