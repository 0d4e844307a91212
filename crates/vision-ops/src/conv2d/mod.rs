//! Two-dimensional convolution (cross-correlation, as in PyTorch) with hand-written gradients.
//!
//! `y[n, o, i, j] = bias[o] + sum over c, a, b of weight[o, c, a, b] *
//! x[n, group(o) * C_in / groups + c, i * stride.0 + a * dilation.0 - padding.0, j * stride.1 + b * dilation.1 - padding.1]`
//!
//! where `x` is 0 outside the image. Backward computes the gradient of `x` as a convolution of the upstream gradient with
//! the turned kernel, and that of `weight` as the product of upstream gradient and shifted input; nothing is saved beyond
//! the arguments.
//!
//! On the CPU both gradients take two thirds of the multiply-adds where the kernel has three rows or more, moves by one and sees
//! eight channels or more, by Winograd's scheme (1980) for pairs of rows. Their rounding differs from that of the plain sums, and is
//! no worse than twice as large; an infinite upstream gradient may give NaN where plain sums give infinity, in the elements that it
//! reaches. The result is always the plain sum, so that equal windows give equal bits, among which pooling chooses the first.

pub mod composed;
mod cpu_kernel;
#[cfg(feature = "cuda")]
pub(crate) mod cuda_kernel;
mod fused;
mod geometry;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor};

use crate::element::has_kernels;
use crate::layer_op::{self, Layer};
use crate::linear::{Linear, layer_of_samples, linear};
pub(crate) use cpu_kernel::{backward, forward};
pub(crate) use fused::Conv2d;
pub(crate) use geometry::Conv2dGeometry;

const OP: &str = "conv2d";

/// How a kernel moves over the image. Pairs are (rows, columns).
///
/// ```
/// use candle_vision_ops::Conv2dOptions;
/// let same = Conv2dOptions { padding: (1, 1), ..Default::default() };
/// assert_eq!(same.stride, (1, 1));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// Distance of neighbouring windows. At least 1; default (1, 1).
    pub stride: (usize, usize),
    /// Zeros added on both sides of the image. Default (0, 0).
    pub padding: (usize, usize),
    /// Distance of neighbouring kernel elements on the image. At least 1; default (1, 1).
    pub dilation: (usize, usize),
    /// Groups of channels that do not see each other; it divides both channel counts. Default 1.
    pub groups: usize,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Self {
            stride: (1, 1),
            padding: (0, 0),
            dilation: (1, 1),
            groups: 1,
        }
    }
}

/// Convolution of `x` (N, C_in, H, W) with `weight` (C_out, C_in / groups, KH, KW), plus `bias` (C_out).
///
/// The result has shape (N, C_out, OH, OW) with
/// `OH = (H + 2 * padding.0 - dilation.0 * (KH - 1) - 1) / stride.0 + 1` rounded down, and OW alike. All tensors are f32 or
/// all are f64, in any layout. See the [module](self) for the formula.
///
/// On the CPU this is one custom op that gives the same bits for any number of threads; on CUDA, with the feature `cuda`, one
/// around candle's matrix product; elsewhere it is [`composed::conv2d`]. A kernel that covers the whole image takes the path of
/// [`linear`](crate::linear()).
///
/// # Errors
///
/// When a tensor has another number of dimensions, shape, dtype or device than the others ask for, a stride or dilation
/// is 0, `groups` does not divide the channels, or the dilated kernel is larger than the padded image.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use candle_vision_ops::{Conv2dOptions, conv2d};
///
/// # fn main() -> candle_core::Result<()> {
/// let x = Tensor::arange(0f32, 9., &Device::Cpu)?.reshape((1, 1, 3, 3))?;
/// let weight = Var::new(&[[[[1f32, 0.], [0., -1.]]]], &Device::Cpu)?;
/// let y = conv2d(&x, &weight, None, Conv2dOptions::default())?;
/// assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [-4.; 4]);
/// let grads = y.sum_all()?.backward()?;
/// let grad = grads.get(&weight).unwrap().flatten_all()?.to_vec1::<f32>()?;
/// assert_eq!(grad, [8., 12., 20., 24.]);
/// # Ok(())
/// # }
/// ```
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    options: Conv2dOptions,
) -> Result<Tensor> {
    match layer(x, weight, bias, options)? {
        Some(Conv2dLayer::Windows(layer)) => layer_op::apply(layer, x, weight, bias),
        Some(Conv2dLayer::Dense(layer)) if x.device().is_cpu() => {
            layer_op::apply(layer, x, weight, bias)
        }
        Some(Conv2dLayer::Dense(layer)) => {
            let y = linear(&x.flatten_from(1)?, &weight.flatten_from(1)?, bias, false)?;
            y.reshape(layer.result_shape())
        }
        None => composed::conv2d(x, weight, bias, options),
    }
}

/// What computes a convolution.
pub(crate) enum Conv2dLayer {
    /// The kernel covers the whole image.
    Dense(Linear),
    Windows(Conv2d),
}

/// The checked layer, where there are kernels for it. Of `x` this looks at shape, dtype and device alone.
pub(crate) fn layer(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    options: Conv2dOptions,
) -> Result<Option<Conv2dLayer>> {
    let geometry = Conv2dGeometry::new(OP, x, weight, bias, options)?;
    if geometry.is_dense()
        && let Some(layer) = layer_of_samples(x, weight, geometry.result_shape())
    {
        return Ok(Some(Conv2dLayer::Dense(layer)));
    }
    let windows = || Conv2dLayer::Windows(Conv2d::new(geometry));
    Ok(has_kernels(x.device()).then(windows))
}
