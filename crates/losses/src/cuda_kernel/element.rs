//! Element types: their names in kernels, and what they are computed in.

use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DeviceRepr};
use candle_core::{CudaDevice, Result, WithDType};
use half::{bf16, f16};

use super::Argument;

/// An element type of the kernels; `element.cuh` has its counterpart.
pub(crate) trait CudaElement: WithDType + CudaDType + DeviceRepr {
    /// The end of a kernel's name.
    const SUFFIX: &'static str;

    /// What arithmetic and sums are done in: f64 for f64, else f32.
    type Compute: CudaElement;

    /// A number of the type [`Self::Compute`] as an argument.
    fn number(x: f64) -> Argument<'static>;
}

macro_rules! element {
    ($element:ty, $suffix:literal, $compute:ty) => {
        impl CudaElement for $element {
            const SUFFIX: &'static str = $suffix;
            type Compute = $compute;

            fn number(x: f64) -> Argument<'static> {
                (x as $compute).into()
            }
        }
    };
}

element!(f32, "f32", f32);
element!(f64, "f64", f64);
element!(f16, "f16", f32);
element!(bf16, "bf16", f32);

/// Memory for `len` elements, which hold anything until they are written. Never empty: CUDA allocates no 0 bytes.
pub(crate) fn filled_later<T: DeviceRepr>(device: &CudaDevice, len: usize) -> Result<CudaSlice<T>> {
    // SAFETY: every type that goes to the device is a plain number, and callers write all of it before it is read.
    unsafe { device.alloc::<T>(len.max(1)) }
}
