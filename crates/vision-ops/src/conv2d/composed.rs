//! Convolution out of Candle's tensor ops: the readable form, and the oracle of the custom op for values and gradients.

use candle_core::{Result, Tensor};

use super::{Conv2dGeometry, Conv2dOptions};
use crate::strided_view::every_nth;

/// As [`crate::conv2d()`], one matrix product for each kernel element; autograd derives the gradient.
///
/// # Errors
///
/// As [`crate::conv2d()`].
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    options: Conv2dOptions,
) -> Result<Tensor> {
    let geometry = Conv2dGeometry::new(super::OP, x, weight, bias, options)?;
    let Conv2dOptions {
        stride,
        padding,
        dilation,
        groups,
    } = options;
    let (rows, columns) = geometry.output;
    let (inputs, outputs) = (geometry.group_inputs(), geometry.group_outputs());
    let padded = x
        .pad_with_zeros(2, padding.0, padding.0)?
        .pad_with_zeros(3, padding.1, padding.1)?;
    let mut sum = Tensor::zeros(
        (geometry.batch, groups, outputs, rows * columns),
        x.dtype(),
        x.device(),
    )?;
    for a in 0..geometry.kernel.0 {
        for b in 0..geometry.kernel.1 {
            let seen = every_nth(&padded, 2, a * dilation.0, stride.0, rows)?;
            let seen = every_nth(&seen, 3, b * dilation.1, stride.1, columns)?.reshape((
                geometry.batch,
                groups,
                inputs,
                rows * columns,
            ))?;
            let weight = weight
                .narrow(2, a, 1)?
                .narrow(3, b, 1)?
                .reshape((1, groups, outputs, inputs))?;
            sum = (sum + weight.broadcast_matmul(&seen)?)?;
        }
    }
    let y = sum.reshape((geometry.batch, geometry.out_channels, rows, columns))?;
    match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, geometry.out_channels, 1, 1))?),
        None => Ok(y),
    }
}
