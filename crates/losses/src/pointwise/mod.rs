//! The one mechanism behind every pointwise loss, open to losses of your own.
//!
//! A pointwise loss is a scalar function of an input element x and a target element t. Written once, as a
//! [`Pointwise`], it becomes a fused op with autograd ([`PointwiseLoss`]), on the CPU and, where it names kernels of the same
//! formula ([`CudaKernels`]), on CUDA:
//!
//! - forward: one pass over input and target, reduced on the way; the elementwise losses are never stored;
//! - backward: one pass, `g * w * dL/dx / n`, the upstream gradient g always applied, the gradient of the target too
//!   if it tracks one;
//! - second derivatives, when candle keeps the graph (`CANDLE_GRAD_DO_NOT_DETACH`);
//! - any strides and offsets, f32, f64, f16 and bf16 (those two computed in f32), the same bits for any number of
//!   threads.
//!
//! ```
//! use candle_core::{Device, Result, Tensor, Var};
//! use candle_losses::{Float, Pointwise, PointwiseLoss};
//!
//! /// ln cosh(x - t): quadratic near 0, linear far from it, smooth everywhere.
//! struct LogCosh;
//!
//! impl Pointwise for LogCosh {
//!     fn value<F: Float>(&self, x: F, t: F) -> F {
//!         let d = (x - t).abs();
//!         d + (F::of(-2.0) * d).exp().ln_1p() - F::of(std::f64::consts::LN_2)
//!     }
//!     fn derivative<F: Float>(&self, x: F, t: F) -> F {
//!         (x - t).tanh()
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! let input = Var::new(&[0.5f32, -1.0, 3.0], &Device::Cpu)?;
//! let target = Tensor::new(&[0.0f32, 0.0, 3.0], &Device::Cpu)?;
//! let loss = PointwiseLoss::new(LogCosh).forward(&input, &target)?;
//! let gradients = loss.backward()?;
//! let gradient = gradients.get(&input).unwrap().to_vec1::<f32>()?;
//! assert!((gradient[0] - 0.5f32.tanh() / 3.0).abs() < 1e-6);
//! # Ok(())
//! # }
//! ```

pub(crate) mod composed;
mod cpu_kernel;
mod cuda;
#[cfg(feature = "cuda")]
mod cuda_kernel;
mod dual;
pub(crate) mod error;
mod float;
mod fused;
mod math;
#[cfg(feature = "cuda")]
mod on_cuda;
mod operand;
pub(crate) mod options;
#[cfg(test)]
pub(crate) mod tests;

pub use cuda::CudaKernels;
pub(crate) use cuda::has_kernels;
pub use dual::Dual;
pub use float::Float;

use crate::EmptyPolicy;
use candle_core::{Result, Tensor};
use options::{MeanOver, Options, common_options};
use std::sync::Arc;

/// A loss that is a scalar function of one input element and one target element.
///
/// Only [`value`](Pointwise::value) is needed. The derivatives are taken of it with [`Dual`] numbers; give them
/// yourself where a closed form is faster or keeps more digits. Second derivatives are taken of the first ones, the
/// same way.
///
/// The formulas run over vectors of elements, so keep them straight: an `if` that chooses between two numbers is fine.
/// See the [module](self) for an example.
pub trait Pointwise: Send + Sync + 'static {
    /// The loss of input x and target t.
    fn value<F: Float>(&self, x: F, t: F) -> F;

    /// The derivative of the loss with respect to x. Default: that of [`value`](Pointwise::value).
    #[inline(always)]
    fn derivative<F: Float>(&self, x: F, t: F) -> F {
        self.value(Dual::variable(x), Dual::constant(t)).slope
    }

    /// The derivative of the loss with respect to t. Default: that of [`value`](Pointwise::value).
    #[inline(always)]
    fn target_derivative<F: Float>(&self, x: F, t: F) -> F {
        self.value(Dual::constant(x), Dual::variable(t)).slope
    }

    /// What error messages call the loss. Default: the name of the type.
    fn name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }

    /// The same formulas in CUDA, where there are any; see [`CudaKernels`]. Default: none, and the loss runs on the CPU.
    fn cuda_kernels(&self) -> Option<CudaKernels> {
        None
    }
}

impl<P: Pointwise> Pointwise for Arc<P> {
    #[inline(always)]
    fn value<F: Float>(&self, x: F, t: F) -> F {
        P::value(self, x, t)
    }
    #[inline(always)]
    fn derivative<F: Float>(&self, x: F, t: F) -> F {
        P::derivative(self, x, t)
    }
    #[inline(always)]
    fn target_derivative<F: Float>(&self, x: F, t: F) -> F {
        P::target_derivative(self, x, t)
    }
    fn name(&self) -> &'static str {
        P::name(self)
    }
    fn cuda_kernels(&self) -> Option<CudaKernels> {
        P::cuda_kernels(self)
    }
}

/// A [`Pointwise`] that may also depend on a constant of each element, like the weight of positives in binary cross
/// entropy.
pub(crate) trait Element: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    fn value<F: Float>(&self, x: F, t: F, p: F) -> F;
    fn derivative<F: Float>(&self, x: F, t: F, p: F) -> F;
    fn target_derivative<F: Float>(&self, x: F, t: F, p: F) -> F;
    fn cuda_kernels(&self) -> Option<CudaKernels> {
        None
    }
}

impl<P: Pointwise> Element for P {
    fn name(&self) -> &'static str {
        Pointwise::name(self)
    }
    #[inline(always)]
    fn value<F: Float>(&self, x: F, t: F, _p: F) -> F {
        Pointwise::value(self, x, t)
    }
    #[inline(always)]
    fn derivative<F: Float>(&self, x: F, t: F, _p: F) -> F {
        Pointwise::derivative(self, x, t)
    }
    #[inline(always)]
    fn target_derivative<F: Float>(&self, x: F, t: F, _p: F) -> F {
        Pointwise::target_derivative(self, x, t)
    }
    fn cuda_kernels(&self) -> Option<CudaKernels> {
        Pointwise::cuda_kernels(self)
    }
}

/// `factor * value`, and 0 where the factor is 0, whatever the value: an outcome of probability 0 costs nothing even
/// where its logarithm is infinite.
#[inline(always)]
pub(crate) fn times<F: Float>(factor: F, value: F) -> F {
    let product = factor * value;
    if factor.is_zero() {
        F::of(0.0)
    } else {
        product
    }
}

/// What a call's reduction comes down to, once its arguments are known to be right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Whether the loss is one number.
    reduced: bool,
    /// What the sum is divided by; 0 for the mean over nothing.
    divisor: f64,
    on_empty: EmptyPolicy,
}

impl Plan {
    fn on_empty_value(&self) -> f64 {
        match self.on_empty {
            EmptyPolicy::Nan => f64::NAN,
            EmptyPolicy::Zero => 0.0,
        }
    }
}

/// Any [`Pointwise`] function as a loss of tensors, with weight and reduction.
///
/// L_i = w_i f(x_i, t_i), then the mean (over the number of elements), the sum, or no reduction.
#[derive(Debug)]
pub struct PointwiseLoss<P> {
    function: Arc<P>,
    options: Options,
}

impl<P> Clone for PointwiseLoss<P> {
    fn clone(&self) -> Self {
        Self {
            function: self.function.clone(),
            options: self.options.clone(),
        }
    }
}

impl<P: Pointwise> PointwiseLoss<P> {
    /// The loss with its default options: mean reduction, no weight.
    pub fn new(function: P) -> Self {
        Self {
            function: Arc::new(function),
            options: Options::default(),
        }
    }

    common_options!("Multiplies each element's loss.");

    /// The loss of `input` and `target`, two tensors of one shape and dtype (f32, f64, f16 or bf16), any layout, on the CPU or,
    /// where the loss names kernels, on CUDA.
    ///
    /// Returns a scalar, or the input's shape without reduction; f32 for f16 and bf16 inputs. Both arguments receive
    /// gradients.
    ///
    /// # Errors
    ///
    /// If shape, dtype or device of target or weight do not fit the input, the input is not a float tensor, or there are no
    /// kernels for its device.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        self.options.fused(
            self.function.clone(),
            input,
            target,
            None,
            MeanOver::Elements,
        )
    }
}
