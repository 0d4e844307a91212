//! Convolution, bias, relu and max pooling in one op: the front half of a classic convolutional network.
//!
//! `y = max_pool2d(relu(conv2d(x, weight, bias)))`, with the formulas of [`crate::conv2d`](mod@crate::conv2d) and
//! [`crate::max_pool2d`](mod@crate::max_pool2d). Pooling before relu gives the same: the largest element of a window stays
//! the largest, and where relu cuts it off no element of the window has a gradient.
//!
//! One element of a window in each channel gets the whole gradient, and none where the result is 0. Backward uses this:
//! with 2 x 2 windows at most a quarter of the positions take part. The saved state is one byte a result, the winner's
//! index in its window; among equal maxima it is the first, as in PyTorch.
//!
//! [`plan()`] says which of the implementations serves a call.

pub mod composed;
mod cpu_kernel;
#[cfg(feature = "cuda")]
mod cuda_kernel;
mod fused;
mod plan;
#[cfg(test)]
mod tests;

use candle_core::{Result, Shape, Tensor};

pub use plan::{Plan, plan};

use crate::conv2d::{Conv2dGeometry, Conv2dOptions, conv2d};
use crate::element::has_kernels;
use crate::layer_op;
use crate::max_pool2d::{PoolGeometry, max_pool2d};
use crate::relu::relu;
pub(crate) use fused::Conv2dReluMaxPool2d;

const OP: &str = "conv2d_relu_max_pool2d";

/// The sizes of both halves, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) conv: Conv2dGeometry,
    pub(crate) pool: PoolGeometry,
}

impl Geometry {
    fn new(
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        options: Conv2dOptions,
        pool_kernel: (usize, usize),
        pool_stride: (usize, usize),
    ) -> Result<Self> {
        let conv = Conv2dGeometry::new(OP, x, weight, Some(bias), options)?;
        let pool = PoolGeometry::new(OP, conv.output, pool_kernel, pool_stride)?;
        Ok(Self { conv, pool })
    }

    /// The result's shape.
    fn result_shape(&self) -> Shape {
        let (rows, columns) = self.pool.output;
        Shape::from((self.conv.batch, self.conv.out_channels, rows, columns))
    }

    /// Results of one channel of one image.
    fn pooled(&self) -> usize {
        self.pool.output.0 * self.pool.output.1
    }
}

/// `max_pool2d(relu(conv2d(x, weight, bias, options)), pool_kernel, pool_stride)` in one op.
///
/// `x` is (N, C_in, H, W), `weight` (C_out, C_in / groups, KH, KW), `bias` (C_out); the result is (N, C_out, PH, PW), the
/// shape that the two ops give one after the other. All tensors are f32 or all are f64 (on CUDA f16 and
/// bf16 too), in any layout. See the
/// [module](self) for what is saved and the choice among equal maxima.
///
/// On the CPU this is one custom op that gives the same bits for any number of threads; on CUDA, with the feature `cuda`, one
/// around candle's matrix product, or three ops where the window has more than 256 elements; elsewhere it is
/// [`composed::conv2d_relu_max_pool2d`].
///
/// # Errors
///
/// As [`crate::conv2d()`] and [`crate::max_pool2d()`].
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_vision_ops::{Conv2dOptions, conv2d_relu_max_pool2d};
///
/// # fn main() -> candle_core::Result<()> {
/// let images = Tensor::zeros((8, 1, 32, 32), candle_core::DType::F32, &Device::Cpu)?;
/// let weight = Tensor::ones((6, 1, 5, 5), candle_core::DType::F32, &Device::Cpu)?;
/// let bias = Tensor::ones(6, candle_core::DType::F32, &Device::Cpu)?;
/// let y = conv2d_relu_max_pool2d(&images, &weight, &bias, Conv2dOptions::default(), (2, 2), (2, 2))?;
/// assert_eq!(y.dims(), [8, 6, 14, 14]);
/// # Ok(())
/// # }
/// ```
pub fn conv2d_relu_max_pool2d(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    options: Conv2dOptions,
    pool_kernel: (usize, usize),
    pool_stride: (usize, usize),
) -> Result<Tensor> {
    match layer(x, weight, bias, options, pool_kernel, pool_stride)? {
        Some(layer) => layer_op::apply(layer, x, weight, Some(bias)),
        None if has_kernels(x.device()) => {
            let map = relu(&conv2d(x, weight, Some(bias), options)?)?;
            max_pool2d(&map, pool_kernel, pool_stride)
        }
        None => {
            composed::conv2d_relu_max_pool2d(x, weight, bias, options, pool_kernel, pool_stride)
        }
    }
}

/// The checked layer, where one op computes it. Of `x` this looks at shape, dtype and device alone.
pub(crate) fn layer(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    options: Conv2dOptions,
    pool_kernel: (usize, usize),
    pool_stride: (usize, usize),
) -> Result<Option<Conv2dReluMaxPool2d>> {
    let geometry = Geometry::new(x, weight, bias, options, pool_kernel, pool_stride)?;
    if !has_kernels(x.device()) {
        return Ok(None);
    }
    Ok(match plan::choose(&geometry, x) {
        Plan::Separate => None,
        plan => Some(Conv2dReluMaxPool2d::new(geometry, plan)),
    })
}
