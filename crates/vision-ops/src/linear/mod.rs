//! A dense layer with its bias and, if asked for, its relu in one op.
//!
//! `y[n, o] = f(bias[o] + sum over i of x[n, i] * weight[o, i])`, f being the identity or `max(0, .)`. With dY the upstream
//! gradient, set to 0 where relu cut off, backward computes `dX = dY W`, `dW = dY^T X` and `db = ` the sum of dY over n.
//! What relu cut off is read from the result, so nothing is saved. At a result of exactly 0 the derivative of relu is 0,
//! as in PyTorch; NaN passes through both ways.

pub mod composed;
mod cpu_kernel;
#[cfg(feature = "cuda")]
mod cuda_kernel;
mod fused;
#[cfg(test)]
mod tests;

use candle_core::{Device, Result, Shape, Tensor};

use crate::VisionOpError;
use crate::element::{dtypes, has_kernels};
use crate::layer_op;
use crate::tensor_access::{check_companion, check_dtype};
pub(crate) use fused::Linear;

const OP: &str = "linear";

/// A dense layer: `x` (..., I) times the transpose of `weight` (O, I), plus `bias` (O), then relu where `relu` is set.
///
/// The result has shape (..., O). All tensors are f32 or all are f64 (on CUDA f16 and
/// bf16 too), in any layout. See the [module](self) for the
/// formula.
///
/// On the CPU this is one custom op that gives the same bits for any number of threads, but for weights too large for a cache
/// to hold; on CUDA, with the feature `cuda`, one around candle's matrix product. Else it is [`composed::linear`].
///
/// # Errors
///
/// When `x` is a scalar, or a tensor has another number of dimensions, shape, dtype or device than the others ask for.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_vision_ops::linear;
///
/// # fn main() -> candle_core::Result<()> {
/// let x = Tensor::new(&[[1f32, 2.]], &Device::Cpu)?;
/// let weight = Tensor::new(&[[3f32, 4.], [-5., 0.]], &Device::Cpu)?;
/// let bias = Tensor::new(&[0.5f32, 1.], &Device::Cpu)?;
/// let y = linear(&x, &weight, Some(&bias), true)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[11.5, 0.]]);
/// # Ok(())
/// # }
/// ```
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, relu: bool) -> Result<Tensor> {
    match layer(x, weight, bias, relu)? {
        Some(layer) => layer_op::apply(layer, x, weight, bias),
        None => composed::linear(x, weight, bias, relu),
    }
}

/// The checked layer, where there are kernels for it. Of `x` this looks at shape, dtype and device alone.
pub(crate) fn layer(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    relu: bool,
) -> Result<Option<Linear>> {
    let sizes = check(x, weight, bias)?;
    if !sizes.have_kernels(x.device()) {
        return Ok(None);
    }
    let mut result = x.dims().to_vec();
    if let Some(last) = result.last_mut() {
        *last = sizes.outputs;
    }
    Ok(Some(Linear::new(sizes, relu, Shape::from(result))))
}

/// A dense layer over whole samples, such as a convolution whose kernel covers the image: of `x` (N, ...) and `weight` (O, ...),
/// alike behind the first dimension, which the caller has checked. The result has shape `result`, N * O elements.
///
/// On the CPU one op, since each reshape around it would be an edge of the graph with zeros and an addition of its own.
/// `None` where there are no kernels for it.
pub(crate) fn layer_of_samples(x: &Tensor, weight: &Tensor, result: Shape) -> Option<Linear> {
    let (rows, outputs) = (*x.dims().first()?, *weight.dims().first()?);
    let sizes = Sizes {
        rows,
        inputs: x.dims()[1..].iter().product(),
        outputs,
    };
    let layer = || Linear::new(sizes, false, result);
    sizes.have_kernels(x.device()).then(layer)
}

/// Rows (the product of the leading dimensions), inputs and outputs.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    rows: usize,
    inputs: usize,
    outputs: usize,
}

impl Sizes {
    /// Whether the kernels of this device serve a layer of these sizes.
    fn have_kernels(&self, device: &Device) -> bool {
        // Without blocking over the depth, a weight that leaves the second-level cache is read again for every few rows.
        const LARGEST_WEIGHT: usize = 1 << 18;
        has_kernels(device) && !(device.is_cpu() && self.inputs * self.outputs > LARGEST_WEIGHT)
    }
}

fn check(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Sizes> {
    check_dtype(OP, "x", x, dtypes(x.device()))?;
    check_companion(OP, "weight", weight, "x", x)?;
    let &[outputs, inputs] = weight.dims() else {
        return Err(VisionOpError::Rank {
            op: OP,
            argument: "weight",
            expected: 2,
            layout: "(outputs, inputs)",
            got: weight.dims().to_vec(),
        }
        .into());
    };
    let Some((&last, leading)) = x.dims().split_last().filter(|&(&last, _)| last == inputs) else {
        return Err(VisionOpError::Shape {
            op: OP,
            argument: "x",
            expected: format!("(..., {inputs})"),
            got: x.dims().to_vec(),
            help: "its last dimension is the second one of `weight`",
        }
        .into());
    };
    if let Some(bias) = bias {
        check_companion(OP, "bias", bias, "x", x)?;
        if bias.dims() != [outputs] {
            return Err(VisionOpError::Shape {
                op: OP,
                argument: "bias",
                expected: format!("({outputs})"),
                got: bias.dims().to_vec(),
                help: "it holds one number for each output",
            }
            .into());
        }
    }
    Ok(Sizes {
        rows: leading.iter().product(),
        inputs: last,
        outputs,
    })
}
