//! The one place that chooses an implementation.

use candle_core::{DType, Result, Tensor};

use super::Geometry;
use crate::conv2d::Conv2dOptions;

/// How [`crate::conv2d_relu_max_pool2d()`] computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Plan {
    /// The map before pooling is computed for the whole batch, then pooled; one byte a result is saved.
    General,
    /// Three ops: the window has more than 256 elements, and its index does not fit a byte.
    Separate,
}

/// Which implementation a call with these arguments takes on the CPU.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_vision_ops::Conv2dOptions;
/// use candle_vision_ops::conv2d_relu_max_pool2d::{Plan, plan};
///
/// # fn main() -> candle_core::Result<()> {
/// let x = Tensor::zeros((1, 4, 40, 40), DType::F32, &Device::Cpu)?;
/// let weight = Tensor::zeros((4, 2, 3, 3), DType::F32, &Device::Cpu)?;
/// let bias = Tensor::zeros(4, DType::F32, &Device::Cpu)?;
/// let options = Conv2dOptions { groups: 2, ..Default::default() };
/// assert_eq!(plan(&x, &weight, &bias, options, (2, 2), (2, 2))?, Plan::General);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As [`crate::conv2d_relu_max_pool2d()`].
pub fn plan(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    options: Conv2dOptions,
    pool_kernel: (usize, usize),
    pool_stride: (usize, usize),
) -> Result<Plan> {
    let geometry = Geometry::new(x, weight, bias, options, pool_kernel, pool_stride)?;
    Ok(choose(&geometry, x.dtype()))
}

pub(super) fn choose(geometry: &Geometry, dtype: DType) -> Plan {
    let plan = if geometry.pool.window() > 256 {
        Plan::Separate
    } else {
        Plan::General
    };
    tracing::trace!(?plan, ?geometry, ?dtype, "conv2d_relu_max_pool2d");
    plan
}
