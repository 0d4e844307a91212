//! Layers one after the other, whose activations no one else sees.
//!
//! [`sequential()`] computes what the ops compute when they are called one after the other, to the bit, and gives the same
//! gradients. It is faster where layers are small: for each activation in its graph Candle makes zeros and adds the gradient to
//! them, in backward, on one thread. Here an activation between two layers stays out of the graph, and its gradient goes from
//! layer to layer as it is. Each layer is still an op of its own, to which its weight and bias belong.

#[cfg(test)]
mod tests;

use candle_core::{Result, Shape, Tensor};

use crate::VisionOpError;
use crate::conv2d::{self, Conv2d, Conv2dLayer, Conv2dOptions, conv2d};
use crate::conv2d_relu_max_pool2d::{self, Conv2dReluMaxPool2d, conv2d_relu_max_pool2d};
use crate::layer_op::{self, Activation, Layer as _};
use crate::linear::{self, Linear, linear};

const OP: &str = "sequential";

/// A layer of [`sequential()`]: an op of this crate without its `x`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Layer<'a> {
    /// [`crate::conv2d()`].
    Conv2d {
        /// (C_out, C_in / groups, KH, KW).
        weight: &'a Tensor,
        /// (C_out).
        bias: Option<&'a Tensor>,
        /// How the kernel moves over the image.
        options: Conv2dOptions,
    },
    /// [`crate::conv2d_relu_max_pool2d()`].
    Conv2dReluMaxPool2d {
        /// (C_out, C_in / groups, KH, KW).
        weight: &'a Tensor,
        /// (C_out).
        bias: &'a Tensor,
        /// How the kernel moves over the image.
        options: Conv2dOptions,
        /// Rows and columns of a window.
        pool_kernel: (usize, usize),
        /// Distance of neighbouring windows.
        pool_stride: (usize, usize),
    },
    /// (N, ...) to (N, the product of the rest).
    Flatten,
    /// [`crate::linear()`].
    Linear {
        /// (outputs, inputs).
        weight: &'a Tensor,
        /// (outputs).
        bias: Option<&'a Tensor>,
        /// Whether relu follows.
        relu: bool,
    },
}

/// What `layers` make of `x`, one after the other.
///
/// Values, gradients, dtypes, devices and layouts are those of the ops. Joined layers are all checked before the first one
/// computes. Elsewhere than on the CPU, or where a layer has no kernel of its own (a window of more than 256 elements), the ops
/// are called one after the other; a `tracing` event at trace level says which way was taken.
///
/// # Errors
///
/// As the ops; [`Layer::Flatten`] when its input is a scalar.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Tensor, Var};
/// use candle_vision_ops::{Conv2dOptions, Layer, sequential};
///
/// # fn main() -> candle_core::Result<()> {
/// let device = Device::Cpu;
/// let images = Tensor::randn(0f32, 1.0, (8, 1, 32, 32), &device)?;
/// let (w1, b1) = (Var::randn(0f32, 0.2, (6, 1, 5, 5), &device)?, Var::zeros(6, DType::F32, &device)?);
/// let w2 = Var::randn(0f32, 0.02, (10, 6 * 14 * 14), &device)?;
/// let logits = sequential(
///     &images,
///     &[
///         Layer::Conv2dReluMaxPool2d {
///             weight: &w1,
///             bias: &b1,
///             options: Conv2dOptions::default(),
///             pool_kernel: (2, 2),
///             pool_stride: (2, 2),
///         },
///         Layer::Flatten,
///         Layer::Linear { weight: &w2, bias: None, relu: false },
///     ],
/// )?;
/// assert_eq!(logits.dims(), [8, 10]);
/// let grads = logits.sum_all()?.backward()?;
/// assert_eq!(grads.get(&w1).unwrap().dims(), [6, 1, 5, 5]);
/// # Ok(())
/// # }
/// ```
pub fn sequential(x: &Tensor, layers: &[Layer<'_>]) -> Result<Tensor> {
    let prepared = prepare(x, layers)?;
    tracing::trace!(
        joined = prepared.is_some(),
        layers = layers.len(),
        "sequential"
    );
    match prepared {
        Some(prepared) => joined(x, prepared),
        None => one_by_one(x, layers),
    }
}

/// A checked layer and its arguments.
struct Prepared<'a> {
    kernels: Kernels,
    weight: &'a Tensor,
    bias: Option<&'a Tensor>,
}

enum Kernels {
    Conv2d(Conv2d),
    Conv2dReluMaxPool2d(Conv2dReluMaxPool2d),
    Linear(Linear),
}

impl Kernels {
    fn result_shape(&self) -> Shape {
        match self {
            Self::Conv2d(layer) => layer.result_shape(),
            Self::Conv2dReluMaxPool2d(layer) => layer.result_shape(),
            Self::Linear(layer) => layer.result_shape(),
        }
    }
}

/// The layers that compute something, and the shape of what comes out in the end.
struct Checked<'a> {
    layers: Vec<Prepared<'a>>,
    result: Shape,
}

/// Checks every layer. `None` where one of them has no kernels of its own on the CPU.
fn prepare<'a>(x: &Tensor, layers: &[Layer<'a>]) -> Result<Option<Checked<'a>>> {
    if !x.device().is_cpu() {
        return Ok(None);
    }
    // Stands for every activation in checks, which look at shape, dtype and device.
    let scalar = Tensor::zeros((), x.dtype(), x.device())?;
    let mut shape = x.shape().clone();
    let mut prepared = Vec::with_capacity(layers.len());
    for layer in layers {
        let x = scalar.broadcast_as(&shape)?;
        let Some((kernels, weight, bias)) = (match *layer {
            Layer::Flatten => {
                shape = flattened(&shape)?;
                continue;
            }
            Layer::Conv2d {
                weight,
                bias,
                options,
            } => conv2d::layer(&x, weight, bias, options)?.map(|layer| {
                let kernels = match layer {
                    Conv2dLayer::Dense(layer) => Kernels::Linear(layer),
                    Conv2dLayer::Windows(layer) => Kernels::Conv2d(layer),
                };
                (kernels, weight, bias)
            }),
            Layer::Conv2dReluMaxPool2d {
                weight,
                bias,
                options,
                pool_kernel,
                pool_stride,
            } => {
                conv2d_relu_max_pool2d::layer(&x, weight, bias, options, pool_kernel, pool_stride)?
                    .map(|layer| (Kernels::Conv2dReluMaxPool2d(layer), weight, Some(bias)))
            }
            Layer::Linear { weight, bias, relu } => linear::layer(&x, weight, bias, relu)?
                .map(|layer| (Kernels::Linear(layer), weight, bias)),
        }) else {
            return Ok(None);
        };
        shape = kernels.result_shape();
        prepared.push(Prepared {
            kernels,
            weight,
            bias,
        });
    }
    Ok(Some(Checked {
        layers: prepared,
        result: shape,
    }))
}

fn flattened(shape: &Shape) -> Result<Shape> {
    match shape.dims() {
        [first, rest @ ..] if !rest.is_empty() => {
            Ok(Shape::from((*first, rest.iter().product::<usize>())))
        }
        dims => Err(VisionOpError::Rank {
            op: OP,
            argument: "the input of Layer::Flatten",
            expected: 2,
            layout: "(N, ...) or more",
            got: dims.to_vec(),
        }
        .into()),
    }
}

/// Applies the layers, each with its activation hidden from Candle's graph but the last.
fn joined(x: &Tensor, checked: Checked<'_>) -> Result<Tensor> {
    let mut activation = Activation::visible(x);
    let mut layers = checked.layers.into_iter().peekable();
    while let Some(layer) = layers.next() {
        let hide = layers.peek().is_some();
        let Prepared {
            kernels,
            weight,
            bias,
        } = layer;
        activation = match kernels {
            Kernels::Conv2d(layer) => layer_op::join(layer, &activation, weight, bias, hide)?,
            Kernels::Conv2dReluMaxPool2d(layer) => {
                layer_op::join(layer, &activation, weight, bias, hide)?
            }
            Kernels::Linear(layer) => layer_op::join(layer, &activation, weight, bias, hide)?,
        };
    }
    let result = activation.into_tensor();
    match result.shape() == &checked.result {
        true => Ok(result),
        false => result.reshape(checked.result),
    }
}

fn one_by_one(x: &Tensor, layers: &[Layer<'_>]) -> Result<Tensor> {
    layers.iter().try_fold(x.clone(), |x, layer| match *layer {
        Layer::Flatten => x.reshape(flattened(x.shape())?),
        Layer::Conv2d {
            weight,
            bias,
            options,
        } => conv2d(&x, weight, bias, options),
        Layer::Conv2dReluMaxPool2d {
            weight,
            bias,
            options,
            pool_kernel,
            pool_stride,
        } => conv2d_relu_max_pool2d(&x, weight, bias, options, pool_kernel, pool_stride),
        Layer::Linear { weight, bias, relu } => linear(&x, weight, bias, relu),
    })
}
