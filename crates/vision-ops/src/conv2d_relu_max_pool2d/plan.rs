//! The one place that chooses an implementation.

use candle_core::{DType, Result, Tensor};
use candle_simd::Isa;

use super::Geometry;
use super::cpu_kernel::patches::Patches;
use crate::conv2d::Conv2dOptions;
use crate::kernels::lanes::lanes;

/// How [`crate::conv2d_relu_max_pool2d()`] computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Plan {
    /// Register-blocked with lanes along the pooled columns, with AVX-512 in backward too where `x` needs no gradient; else the
    /// sparse backward pass.
    ColumnLanes,
    /// Register-blocked with lanes along the output channels; sparse backward pass.
    ChannelLanes,
    /// The map before pooling is computed for the whole batch, then pooled; one byte a result is saved.
    General,
    /// Three ops: the window has more than 256 elements, and its index does not fit a byte.
    Separate,
}

/// Which implementation a call with these arguments takes on the CPU, and on CUDA with the feature `cuda`, which knows
/// [`Plan::General`] and [`Plan::Separate`] alone.
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
    Ok(choose(&geometry, x))
}

pub(super) fn choose(geometry: &Geometry, x: &Tensor) -> Plan {
    let (isa, dtype) = (Isa::active(), x.dtype());
    let plan = if geometry.pool.window() > 256 {
        Plan::Separate
    } else if x.device().is_cpu() {
        register_blocked(isa, geometry, dtype).unwrap_or(Plan::General)
    } else {
        Plan::General
    };
    tracing::trace!(?plan, ?isa, ?geometry, ?dtype, "conv2d_relu_max_pool2d");
    plan
}

/// The register-blocked kernel that fits, if one does.
fn register_blocked(isa: Isa, geometry: &Geometry, dtype: DType) -> Option<Plan> {
    let conv = &geometry.conv;
    let halves = geometry.pool.kernel == (2, 2) && geometry.pool.stride == (2, 2);
    let dense = conv.options.stride == (1, 1)
        && conv.options.dilation == (1, 1)
        && conv.options.groups == 1;
    let some = conv.input_len() > 0 && conv.out_channels > 0;
    if !halves || !dense || !some {
        return None;
    }
    let lanes = match dtype {
        DType::F32 => lanes::<f32>(isa),
        _ => lanes::<f64>(isa),
    };
    // The image, laid out as patches, is read at random, so it has to stay in the second-level cache.
    const LARGEST_PATCHES: usize = 1 << 16;
    let fits = |apart| Patches::new(geometry, lanes, apart).buffer_len() <= LARGEST_PATCHES;
    if !fits(true) || !fits(false) {
        return None;
    }
    // In hundredths: how many lanes compute something that is kept. Below half, the general path's kernel wastes less.
    let used = |count: usize| 100 * count / count.next_multiple_of(lanes);
    let (columns, channels) = (used(geometry.pool.output.1), used(conv.out_channels));
    match columns.max(channels) {
        0..50 => None,
        best if best == channels => Some(Plan::ChannelLanes),
        _ => Some(Plan::ColumnLanes),
    }
}
