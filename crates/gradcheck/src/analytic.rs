//! The gradients that the backward pass gives: every combination of upstream gradient, layout and tracked inputs.

use crate::error::{Failure, SetupError};
use crate::layouts::InputLayout;
use crate::random::SplitMix64;
use candle_core::{DType, Result, Tensor, Var};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A function under test: any number of tensors to one tensor.
pub(crate) type Function<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// The gradient of one input: none where the backward pass left none.
pub(crate) type Gradient = Option<Vec<f64>>;

/// The dtypes that carry gradients here.
pub(crate) fn is_supported(dtype: DType) -> bool {
    matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
}

/// `tensor` as f64 values in row-major order.
pub(crate) fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

/// The fixed, non-unit upstream gradient of an output of `count` elements.
pub(crate) fn upstream(seed: u64, count: usize) -> Vec<f64> {
    let mut rng = SplitMix64::new(seed);
    (0..count).map(|_| rng.upstream_element()).collect()
}

/// A forward pass, kept so that several backward passes can run over the same graph.
pub(crate) struct Graph {
    /// The leaf of each requested input.
    leaves: Vec<Var>,
    pub(crate) output: Tensor,
}

/// What a backward pass gave.
pub(crate) enum Backward {
    Gradients(Vec<Gradient>),
    /// Shape or dtype of a gradient is wrong, or the pass panicked.
    Broken(Failure),
}

impl Graph {
    /// Runs `function` with leaves for the inputs in `tracked`, all inputs seen in `layout`.
    pub(crate) fn forward(
        function: Function<'_>,
        inputs: &[Tensor],
        tracked: &[usize],
        layout: InputLayout,
    ) -> Result<Self> {
        let mut leaves = Vec::with_capacity(tracked.len());
        let mut seen = Vec::with_capacity(inputs.len());
        for (i, input) in inputs.iter().enumerate() {
            if tracked.contains(&i) {
                let leaf = Var::from_tensor(&input.detach())?;
                seen.push(layout.view(leaf.as_tensor())?);
                leaves.push(leaf);
            } else {
                seen.push(layout.view(&input.detach())?);
            }
        }
        let output = function(&seen)?;
        if !is_supported(output.dtype()) {
            return Err(SetupError::IntegerOutput {
                dtype: output.dtype().as_str(),
            }
            .into());
        }
        Ok(Self { leaves, output })
    }

    /// Runs the backward pass for an upstream gradient given in f64, row-major.
    ///
    /// `names` are those of the tracked inputs, for the findings.
    pub(crate) fn backward(
        &self,
        upstream: &[f64],
        names: &[String],
        layout: InputLayout,
    ) -> Result<Backward> {
        let output = &self.output;
        let upstream = Tensor::from_slice(upstream, output.shape(), output.device())?
            .to_dtype(output.dtype())?;
        let loss = (output * upstream)?.sum_all()?;
        // Candle panics, where one would expect an error, when an op leaves no gradient for an argument that is not a
        // leaf. That is a finding about the function under test.
        let grads = match catch_unwind(AssertUnwindSafe(|| loss.backward())) {
            Ok(grads) => grads?,
            Err(payload) => {
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string));
                let message = text.unwrap_or_else(|| "no message".to_string());
                return Ok(Backward::Broken(Failure::BackwardPanicked {
                    layout,
                    message,
                }));
            }
        };
        let mut gradients = Vec::with_capacity(self.leaves.len());
        for (leaf, name) in self.leaves.iter().zip(names) {
            let Some(gradient) = grads.get(leaf) else {
                gradients.push(None);
                continue;
            };
            let tensor = name.clone();
            if gradient.dims() != leaf.dims() {
                let (expected, found) = (leaf.dims().to_vec(), gradient.dims().to_vec());
                return Ok(Backward::Broken(Failure::Shape {
                    tensor,
                    expected,
                    found,
                }));
            }
            if gradient.dtype() != leaf.dtype() {
                let (expected, found) = (leaf.dtype().as_str(), gradient.dtype().as_str());
                return Ok(Backward::Broken(Failure::DType {
                    tensor,
                    expected,
                    found,
                }));
            }
            gradients.push(Some(values(gradient)?));
        }
        Ok(Backward::Gradients(gradients))
    }
}
