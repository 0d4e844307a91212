//! The three steps out of Candle's tensor ops: the readable form, and the oracle of the custom op.

use candle_core::{Result, Tensor};

use crate::conv2d::{self, Conv2dOptions};
use crate::max_pool2d;
use crate::relu::relu;

/// As [`crate::conv2d_relu_max_pool2d()`], from the composed forms of its parts; autograd derives the gradient.
///
/// # Errors
///
/// As [`crate::conv2d_relu_max_pool2d()`].
pub fn conv2d_relu_max_pool2d(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    options: Conv2dOptions,
    pool_kernel: (usize, usize),
    pool_stride: (usize, usize),
) -> Result<Tensor> {
    let map = relu(&conv2d::composed::conv2d(x, weight, Some(bias), options)?)?;
    max_pool2d::composed::max_pool2d(&map, pool_kernel, pool_stride)
}
