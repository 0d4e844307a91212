//! The element types that the computing ops take.

use candle_core::{DType, WithDType};
use candle_simd::Float;

/// f32 or f64: what a kernel computes in and a tensor holds.
pub(crate) trait Element: Float + WithDType {}
impl Element for f32 {}
impl Element for f64 {}

/// The dtypes of [`Element`].
pub(crate) const DTYPES: [DType; 2] = [DType::F32, DType::F64];
