//! Second derivatives: a gradient check of the gradient.

use crate::analytic::{is_supported, upstream};
use crate::error::SetupError;
use crate::options::GradCheck;
use crate::report::Report;
use candle_core::{DType, Device, Result, Tensor, Var};

/// Whether this thread's backward passes keep the graph of the gradient.
///
/// Decided by an experiment rather than by the environment, since Candle reads `CANDLE_GRAD_DO_NOT_DETACH` once a
/// thread: the second derivative of x^3 at 2 is 12, and 8 when the intermediate gradient is detached.
///
/// # Errors
/// Only if Candle cannot multiply three numbers.
pub fn second_order_is_available() -> Result<bool> {
    let x = Var::new(2.0f64, &Device::Cpu)?;
    let x = x.as_tensor();
    let cube = x.mul(x)?.mul(x)?;
    let Some(first) = cube.backward()?.remove(x) else {
        return Ok(false);
    };
    let second = first.backward()?.remove(x);
    second.map_or(Ok(false), |second| {
        Ok((second.to_scalar::<f64>()? - 12.0).abs() < 1e-9)
    })
}

impl GradCheck {
    /// Checks the second derivatives of `function`: the gradient of its gradient, with respect to every differentiable
    /// input and to the upstream gradient.
    ///
    /// The checked function takes `inputs` and one more tensor, the upstream gradient, and returns all gradients in one
    /// vector. The report calls that tensor `upstream gradient`. Strided views are left to the first-order check, since
    /// Candle keeps gradients of leaves only.
    ///
    /// Candle detaches gradients unless the environment variable `CANDLE_GRAD_DO_NOT_DETACH` is set when a thread runs
    /// its first backward pass, so it has to be set before the process starts. A test does that by starting itself
    /// again: `Command::new(std::env::current_exe()?)` with the variable set and the test's own name as filter.
    ///
    /// # Errors
    /// [`SetupError::Detached`] when this thread detaches gradients; else as for [`check`](GradCheck::check).
    pub fn check_second_order<F>(&self, function: F, inputs: &[Tensor]) -> Result<Report>
    where
        F: Fn(&[Tensor]) -> Result<Tensor>,
    {
        if !second_order_is_available()? {
            return Err(SetupError::Detached.into());
        }
        let tracked: Vec<usize> = match &self.differentiable {
            Some(chosen) => chosen.clone(),
            None => (0..inputs.len())
                .filter(|&i| is_supported(inputs[i].dtype()))
                .collect(),
        };
        if tracked.is_empty() {
            return Err(SetupError::NothingToCheck {
                count: inputs.len(),
            }
            .into());
        }
        if let Some(&index) = tracked.iter().find(|&&i| i >= inputs.len()) {
            return Err(SetupError::NoSuchInput {
                index,
                count: inputs.len(),
            }
            .into());
        }
        let output = function(inputs)?;
        let weights = upstream(self.seed.wrapping_add(1), output.elem_count());
        let weights = Tensor::from_slice(&weights, output.shape(), output.device())?
            .to_dtype(output.dtype())?;
        let mut all = inputs.to_vec();
        all.push(weights);

        let gradient = |all: &[Tensor]| -> Result<Tensor> {
            let mut seen = all.to_vec();
            for &i in &tracked {
                if !seen[i].is_variable() {
                    seen[i] = Var::from_tensor(&seen[i])?.into_inner();
                }
            }
            let upstream = seen.remove(inputs.len());
            let output = function(&seen)?;
            let loss = (&output * upstream.to_dtype(output.dtype())?)?.sum_all()?;
            let mut grads = loss.backward()?;
            let flat = tracked.iter().map(|&i| {
                let zeros = || seen[i].zeros_like();
                grads
                    .remove(&seen[i])
                    .map_or_else(zeros, Ok)?
                    .flatten_all()?
                    .to_dtype(highest(&seen, &tracked))
            });
            Tensor::cat(&flat.collect::<Result<Vec<_>>>()?, 0)
        };
        let mut names: Vec<String> = (0..inputs.len()).map(|i| self.name_of(i)).collect();
        names.push("upstream gradient".to_string());
        let mut chosen = tracked.clone();
        chosen.push(inputs.len());
        self.clone()
            .differentiable(chosen)
            .names(names)
            .strided(false)
            .check(gradient, &all)
    }
}

/// The dtype that holds the gradients of all of `tracked` when they are put into one vector.
fn highest(tensors: &[Tensor], tracked: &[usize]) -> DType {
    let dtypes = tracked.iter().map(|&i| tensors[i].dtype());
    dtypes
        .max_by_key(DType::size_in_bytes)
        .unwrap_or(DType::F64)
}
