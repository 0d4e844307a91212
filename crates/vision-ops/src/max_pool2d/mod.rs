//! Two-dimensional max pooling with PyTorch's gradient: the first maximum of a window takes all of it.
//!
//! `y[n, c, i, j] = max over a < kernel.0, b < kernel.1 of x[n, c, i * stride.0 + a, j * stride.1 + b]`
//!
//! without padding, `i < (H - kernel.0) / stride.0 + 1` rounded down, as `torch.nn.functional.max_pool2d` computes it.
//! A window is scanned row by row and an element replaces the maximum so far when it is strictly greater or NaN, so that
//! NaN propagates. Forward keeps the winner of each window as an index inside the window (one byte for windows of up to
//! 256 elements), and backward adds the upstream gradient at the winners: windows that overlap add up.
//!
//! Candle 0.11's own `max_pool2d` shares the gradient among the elements of a window in its backward pass: a unique
//! maximum of a 2 x 2 window gets a quarter of it. It also refuses to differentiate when kernel and stride differ.

pub mod composed;
mod cpu_kernel;
#[cfg(feature = "cuda")]
pub(crate) mod cuda_kernel;
mod fused;
#[cfg(test)]
mod tests;

use candle_core::{DType, Result, Tensor};

use crate::VisionOpError;
use crate::element::has_kernels;
use crate::tensor_access::{check_dtype, check_positive, dims4};

const OP: &str = "max_pool2d";

/// Sizes of one pooling, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PoolGeometry {
    pub(crate) kernel: (usize, usize),
    pub(crate) stride: (usize, usize),
    pub(crate) input: (usize, usize),
    pub(crate) output: (usize, usize),
}

impl PoolGeometry {
    pub(crate) fn new(
        op: &'static str,
        input: (usize, usize),
        kernel: (usize, usize),
        stride: (usize, usize),
    ) -> Result<Self> {
        check_positive(op, "kernel", kernel)?;
        check_positive(op, "stride", stride)?;
        if kernel.0 > input.0 || kernel.1 > input.1 {
            return Err(VisionOpError::Parameter {
                op,
                argument: "kernel",
                expected: format!(
                    "no larger than the {} x {} image that is pooled",
                    input.0, input.1
                ),
                got: format!("{kernel:?}"),
            }
            .into());
        }
        Ok(Self {
            kernel,
            stride,
            input,
            output: (
                (input.0 - kernel.0) / stride.0 + 1,
                (input.1 - kernel.1) / stride.1 + 1,
            ),
        })
    }

    /// How many elements a window has.
    pub(crate) fn window(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }
}

/// Max pooling over windows of `kernel` = (rows, columns), `stride` = (rows, columns) apart.
///
/// `x` has shape (N, C, H, W), any layout, dtype f32, f64, f16 or bf16; the result has shape
/// (N, C, (H - kernel.0) / stride.0 + 1, (W - kernel.1) / stride.1 + 1) and the dtype of `x`.
/// See the [module](self) for the formula and for the choice among equal maxima.
///
/// On the CPU, and on CUDA with the feature `cuda`, this is one custom op; elsewhere it is [`composed::max_pool2d`], which has the same values and gradient.
///
/// # Errors
///
/// When `x` does not have four dimensions or another dtype, when a kernel or stride is 0, and when the kernel is larger
/// than the image.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Var};
/// use candle_vision_ops::max_pool2d;
///
/// # fn main() -> candle_core::Result<()> {
/// let x = Var::new(&[[[[1f32, 2.], [4., 3.]]]], &Device::Cpu)?;
/// let y = max_pool2d(&x, (2, 2), (2, 2))?;
/// assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [4.]);
/// let grads = y.sum_all()?.backward()?;
/// let grad = grads.get(&x).unwrap().flatten_all()?.to_vec1::<f32>()?;
/// assert_eq!(grad, [0., 0., 1., 0.]);
/// # Ok(())
/// # }
/// ```
pub fn max_pool2d(x: &Tensor, kernel: (usize, usize), stride: (usize, usize)) -> Result<Tensor> {
    let geometry = check(x, kernel, stride)?;
    if has_kernels(x.device()) {
        fused::apply(x, geometry)
    } else {
        composed::max_pool2d(x, kernel, stride)
    }
}

fn check(x: &Tensor, kernel: (usize, usize), stride: (usize, usize)) -> Result<PoolGeometry> {
    let (_, _, height, width) = dims4(OP, "x", "(N, C, H, W)", x)?;
    check_dtype(
        OP,
        "x",
        x,
        &[DType::F32, DType::F64, DType::F16, DType::BF16],
    )?;
    PoolGeometry::new(OP, (height, width), kernel, stride)
}
