//! Adam as PyTorch computes it, with a state that can be saved and restored.
//!
//! For each parameter `w` with gradient `g`, at step `t` counted from 1:
//!
//! ```text
//! m <- m + (1 - beta1) (g - m)
//! v <- beta2 v + (1 - beta2) g g
//! w <- w - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
//! ```
//!
//! in this order of operations, which is that of `torch.optim.Adam` without weight decay. The coefficients are computed in
//! double precision and rounded once.
//!
//! A moment that has decayed to nearly the smallest normal number (`smallest_moment`) becomes 0. The first moment of a unit that
//! is dead for good, which relu leaves many of, would otherwise sink into the subnormal numbers and stay there, where each
//! operation takes a processor a hundred times as long; no weight can show the difference.
//!
//! On the CPU and on CUDA, in f32 and f64, one pass over each parameter updates `w`, `m` and `v` (`cpu_kernel`, `cuda_kernel`), with
//! the moments of all parameters in two flat buffers. Elsewhere the update is composed of tensor ops (`composed`), which is also
//! the oracle of the tests. All give the same bits.
//!
//! Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), Algorithm 1.

mod composed;
mod cpu_kernel;
#[cfg(feature = "cuda")]
mod cuda_kernel;
#[cfg(test)]
mod tests;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Layout, Tensor, Var, WithDType};

use crate::errors::{Result, TrainerError};
use composed::TensorMoments;
use cpu_kernel::FlatMoments;
#[cfg(feature = "cuda")]
use cuda_kernel::DeviceMoments;

/// Parameters in a fixed order, as [`lenet5::LeNet5::parameters`] returns them.
pub type Parameters = [(&'static str, Var)];

/// Adam's constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamOptions {
    /// The learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the square root of the bias-corrected second moment.
    pub eps: f64,
}

impl Default for AdamOptions {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
        }
    }
}

/// What the formula needs at one step, in double precision.
#[derive(Debug, Clone, Copy)]
struct Coefficients {
    one_minus_beta1: f64,
    beta2: f64,
    one_minus_beta2: f64,
    sqrt_bias_correction2: f64,
    eps: f64,
    step_size: f64,
}

impl Coefficients {
    fn new(options: &AdamOptions, step: u64) -> Self {
        let step = step as f64;
        Self {
            one_minus_beta1: 1.0 - options.beta1,
            beta2: options.beta2,
            one_minus_beta2: 1.0 - options.beta2,
            sqrt_bias_correction2: (1.0 - options.beta2.powf(step)).sqrt(),
            eps: options.eps,
            step_size: options.lr / (1.0 - options.beta1.powf(step)),
        }
    }
}

/// Moments nearer to 0 become 0: so far from the smallest normal number that their product with a coefficient is normal too. Half
/// precision, which is composed of tensor ops, has no such number.
fn smallest_moment(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(f32::MIN_POSITIVE) * (1u64 << 24) as f64,
        DType::F64 => f64::MIN_POSITIVE * (1u64 << 53) as f64,
        _ => 0.0,
    }
}

/// The coefficients in the type of the parameters. `Coefficients` of `adam.cu` is the same on the device.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Rounded<T> {
    one_minus_beta1: T,
    beta2: T,
    one_minus_beta2: T,
    sqrt_bias_correction2: T,
    eps: T,
    minus_step_size: T,
    smallest_moment: T,
}

impl<T: WithDType> Rounded<T> {
    fn new(c: Coefficients) -> Self {
        Self {
            one_minus_beta1: T::from_f64(c.one_minus_beta1),
            beta2: T::from_f64(c.beta2),
            one_minus_beta2: T::from_f64(c.one_minus_beta2),
            sqrt_bias_correction2: T::from_f64(c.sqrt_bias_correction2),
            eps: T::from_f64(c.eps),
            minus_step_size: T::from_f64(-c.step_size),
            smallest_moment: T::from_f64(smallest_moment(T::DTYPE)),
        }
    }
}

/// First and second moments of every parameter, and the update that goes with where they lie.
trait Moments: Send + Sync {
    /// Copies moments whose number, shapes and dtype the caller has checked.
    fn fill(&mut self, saved: &[(Tensor, Tensor)]) -> candle_core::Result<()>;

    /// A copy on the CPU, in the parameters' order and shapes.
    fn tensors(&self, parameters: &Parameters) -> candle_core::Result<Vec<(Tensor, Tensor)>>;

    /// Updates the parameters that the moments were made for, all of them in their order.
    fn update(
        &mut self,
        updates: &[Update<'_>],
        coefficients: Coefficients,
    ) -> candle_core::Result<()>;
}

/// A parameter and what its gradient is the sum of: contiguous tensors, added in their order.
struct Update<'a> {
    var: &'a Var,
    gradient: Tensor,
    rest: Vec<Tensor>,
}

impl Update<'_> {
    /// The whole gradient, where a kernel does not add it up itself.
    fn sum(&self) -> candle_core::Result<Tensor> {
        self.rest
            .iter()
            .try_fold(self.gradient.clone(), |sum, gradient| sum + gradient)
    }
}

/// Where a contiguous tensor starts and ends in its storage.
type Span = (usize, usize);

/// Where a parameter and its gradient lie, of which a kernel takes contiguous ones alone.
fn spans(weights: &Layout, gradient: &Layout) -> candle_core::Result<(Span, Span)> {
    let (Some(weights), Some(gradient)) =
        (weights.contiguous_offsets(), gradient.contiguous_offsets())
    else {
        candle_core::bail!("adam: parameter and gradient must be contiguous");
    };
    Ok((weights, gradient))
}

/// The optimizer: options, step count and moments.
pub struct Adam {
    options: AdamOptions,
    steps: u64,
    /// How many it was made for.
    parameters: usize,
    moments: Box<dyn Moments>,
}

/// The state of an [`Adam`] as tensors, for a checkpoint.
#[derive(Debug, Clone)]
pub struct AdamState {
    /// Steps taken.
    pub steps: u64,
    /// First and second moment of each parameter, in the parameters' order, shapes and dtype, on the CPU.
    pub moments: Vec<(Tensor, Tensor)>,
}

impl Adam {
    /// An optimizer at step 0 for these parameters.
    ///
    /// # Errors
    /// When the device fails to allocate.
    pub fn new(options: AdamOptions, parameters: &Parameters) -> Result<Self> {
        Ok(Self {
            options,
            steps: 0,
            parameters: parameters.len(),
            moments: fused(parameters)?,
        })
    }

    /// The same update out of tensor ops, on any device: slower, and the oracle of the fused one.
    ///
    /// # Errors
    /// As [`Adam::new`].
    pub fn composed(options: AdamOptions, parameters: &Parameters) -> Result<Self> {
        Ok(Self {
            options,
            steps: 0,
            parameters: parameters.len(),
            moments: Box::new(TensorMoments::zeros(parameters)?),
        })
    }

    /// An optimizer that goes on from a saved state.
    ///
    /// # Errors
    /// When the state does not fit the parameters in number, shape or dtype.
    pub fn restore(
        options: AdamOptions,
        parameters: &Parameters,
        state: &AdamState,
    ) -> Result<Self> {
        let fits = state.moments.len() == parameters.len()
            && state
                .moments
                .iter()
                .zip(parameters)
                .all(|((m, v), (_, w))| {
                    [m, v]
                        .iter()
                        .all(|t| t.dims() == w.dims() && t.dtype() == w.dtype())
                });
        if !fits {
            return Err(TrainerError::Data(
                "the optimizer's saved moments do not have the shapes and dtype of the model's parameters".into(),
            ));
        }
        let mut adam = Self::new(options, parameters)?;
        adam.steps = state.steps;
        adam.moments.fill(&state.moments)?;
        Ok(adam)
    }

    /// The state as tensors on the CPU.
    ///
    /// # Errors
    /// When the moments cannot be copied from their device.
    pub fn state(&self, parameters: &Parameters) -> Result<AdamState> {
        Ok(AdamState {
            steps: self.steps,
            moments: self.moments.tensors(parameters)?,
        })
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Updates every parameter in place with its gradient.
    ///
    /// # Errors
    /// When a parameter has no gradient in `grads`: the loss does not depend on it, which in training is a bug.
    pub fn step(&mut self, parameters: &Parameters, grads: &GradStore) -> Result<()> {
        self.step_of_parts(parameters, &[grads])
    }

    /// As [`Adam::step`] with the sum of the gradients of a batch's parts, added in their order while the update passes by.
    ///
    /// # Errors
    /// As [`Adam::step`], for each part.
    pub fn step_of_parts<'p>(
        &mut self,
        parameters: &'p Parameters,
        parts: &[&GradStore],
    ) -> Result<()> {
        if parameters.len() != self.parameters {
            return Err(TrainerError::Run(format!(
                "the optimizer was made for {} parameters and is to update {}",
                self.parameters,
                parameters.len()
            )));
        }
        let Some((first, rest)) = parts.split_first() else {
            return Err(TrainerError::Run("an optimizer step of no parts".into()));
        };
        let update = |(name, var): &'p (&'static str, Var)| {
            let gradient = |part: &&GradStore| {
                part.get(var)
                    .map(Tensor::contiguous)
                    .transpose()?
                    .ok_or_else(|| {
                        TrainerError::Run(format!(
                            "parameter {name} has no gradient: the loss does not depend on it"
                        ))
                    })
            };
            Ok(Update {
                var,
                gradient: gradient(first)?,
                rest: rest.iter().map(gradient).collect::<Result<_>>()?,
            })
        };
        let updates = parameters.iter().map(update).collect::<Result<Vec<_>>>()?;
        self.steps += 1;
        let coefficients = Coefficients::new(&self.options, self.steps);
        self.moments.update(&updates, coefficients)?;
        Ok(())
    }
}

/// Moments of zero for the fused update, where there is one for these parameters.
fn fused(parameters: &Parameters) -> Result<Box<dyn Moments>> {
    let kind = parameters
        .first()
        .map(|(_, var)| (var.device(), var.dtype()));
    Ok(match kind {
        Some((Device::Cpu, DType::F32)) => Box::new(FlatMoments::<f32>::zeros(parameters)),
        Some((Device::Cpu, DType::F64)) => Box::new(FlatMoments::<f64>::zeros(parameters)),
        #[cfg(feature = "cuda")]
        Some((Device::Cuda(device), DType::F32)) => {
            Box::new(DeviceMoments::<f32>::zeros(device, parameters)?)
        }
        #[cfg(feature = "cuda")]
        Some((Device::Cuda(device), DType::F64)) => {
            Box::new(DeviceMoments::<f64>::zeros(device, parameters)?)
        }
        _ => Box::new(TensorMoments::zeros(parameters)?),
    })
}
