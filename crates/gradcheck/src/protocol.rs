//! What a backward pass owes whatever its numbers: same bits again, linear in the upstream gradient, the same for every
//! memory layout and for every choice of tracked inputs.

use crate::analytic::{Backward, Function, Gradient, Graph};
use crate::compare::{epsilon, unravel};
use crate::error::Failure;
use crate::layouts::InputLayout;
use candle_core::{DType, Result, Tensor};

/// Other summation orders may round differently: this many epsilons of the largest element.
const REORDERING_ULPS: f64 = 64.0;

/// The inputs whose backward pass is examined, and what the first pass over contiguous inputs gave.
pub(crate) struct Protocol<'a> {
    pub(crate) function: Function<'a>,
    pub(crate) inputs: &'a [Tensor],
    pub(crate) tracked: &'a [usize],
    pub(crate) names: &'a [String],
    pub(crate) upstream: &'a [f64],
    pub(crate) graph: &'a Graph,
    pub(crate) first: &'a [Gradient],
}

impl Protocol<'_> {
    /// The backward pass a second time over the same graph, then over a graph of its own: the same bits.
    pub(crate) fn repeats(&self) -> Result<Vec<Failure>> {
        let again = self
            .graph
            .backward(self.upstream, self.names, InputLayout::Contiguous)?;
        let other = Graph::forward(
            self.function,
            self.inputs,
            self.tracked,
            InputLayout::Contiguous,
        )?;
        let other = other.backward(self.upstream, self.names, InputLayout::Contiguous)?;
        for repeated in [again, other] {
            let gradients = match repeated {
                Backward::Broken(failure) => return Ok(vec![failure]),
                Backward::Gradients(gradients) => gradients,
            };
            let found = self.first_difference(&gradients, |_, a, b| {
                a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
            });
            if let Some((i, index, first, second)) = found {
                return Ok(vec![Failure::NotRepeatable {
                    tensor: self.names[i].clone(),
                    index,
                    first,
                    second,
                }]);
            }
        }
        Ok(Vec::new())
    }

    /// Upstream gradients of zero and of twice the size. The zeros are a tensor: Candle prunes a product with the
    /// number zero from the graph, so that nothing would be tested.
    pub(crate) fn is_linear(&self) -> Result<Vec<Failure>> {
        let mut failures = Vec::new();
        let zeros = vec![0.0; self.upstream.len()];
        match self
            .graph
            .backward(&zeros, self.names, InputLayout::Contiguous)?
        {
            Backward::Broken(failure) => failures.push(failure),
            Backward::Gradients(gradients) => {
                'tensors: for (i, gradient) in gradients.iter().enumerate() {
                    for (k, &value) in gradient.iter().flatten().enumerate() {
                        if value != 0.0 {
                            let index = unravel(k, self.inputs[self.tracked[i]].dims());
                            failures.push(Failure::ZeroUpstream {
                                tensor: self.names[i].clone(),
                                index,
                                value,
                            });
                            break 'tensors;
                        }
                    }
                }
            }
        }
        let doubled: Vec<f64> = self.upstream.iter().map(|u| 2.0 * u).collect();
        match self
            .graph
            .backward(&doubled, self.names, InputLayout::Contiguous)?
        {
            Backward::Broken(failure) => failures.push(failure),
            Backward::Gradients(gradients) => {
                let found = self.first_difference(&gradients, |i, single, doubled| {
                    let dtype = self.inputs[self.tracked[i]].dtype();
                    // Doubling is exact in binary, except where one of the two is subnormal or overflows.
                    let slack = 4.0 * epsilon(dtype) * doubled.abs() + smallest_normal(dtype);
                    (doubled - 2.0 * single).abs() <= slack || !single.is_finite()
                });
                if let Some((i, index, single, doubled)) = found {
                    failures.push(Failure::DoubledUpstream {
                        tensor: self.names[i].clone(),
                        index,
                        single,
                        doubled,
                    });
                }
            }
        }
        Ok(failures)
    }

    /// Non-contiguous views of the same values: the same gradient, up to another order of summation.
    pub(crate) fn ignores_layout(&self) -> Result<Vec<Failure>> {
        let mut failures = Vec::new();
        for layout in [InputLayout::Transposed, InputLayout::Offset] {
            let graph = match Graph::forward(self.function, self.inputs, self.tracked, layout) {
                Ok(graph) => graph,
                Err(refusal) => {
                    failures.push(Failure::LayoutRefused {
                        layout,
                        message: refusal.to_string(),
                    });
                    continue;
                }
            };
            match graph.backward(self.upstream, self.names, layout)? {
                Backward::Broken(failure) => failures.push(failure),
                Backward::Gradients(gradients) => {
                    if let Some((i, index, contiguous, strided)) =
                        self.first_difference(&gradients, self.reordered())
                    {
                        let tensor = self.names[i].clone();
                        failures.push(Failure::Layout {
                            tensor,
                            index,
                            layout,
                            contiguous,
                            strided,
                        });
                    }
                }
            }
        }
        Ok(failures)
    }

    /// Each input as the only one that tracks gradients: an op that skips work for constants must not change the rest.
    pub(crate) fn ignores_tracking(&self) -> Result<Vec<Failure>> {
        let mut failures = Vec::new();
        if self.tracked.len() < 2 {
            return Ok(failures);
        }
        for (i, &input) in self.tracked.iter().enumerate() {
            let graph = Graph::forward(
                self.function,
                self.inputs,
                &[input],
                InputLayout::Contiguous,
            )?;
            match graph.backward(self.upstream, &self.names[i..=i], InputLayout::Contiguous)? {
                Backward::Broken(failure) => failures.push(failure),
                Backward::Gradients(mut alone) => {
                    let mut gradients = self.first.to_vec();
                    gradients[i] = alone.swap_remove(0);
                    if let Some((_, index, together, alone)) =
                        self.first_difference(&gradients, self.reordered())
                    {
                        let tensor = self.names[i].clone();
                        failures.push(Failure::DependsOnTracking {
                            tensor,
                            index,
                            together,
                            alone,
                        });
                    }
                }
            }
        }
        Ok(failures)
    }

    /// Equal up to another order of summation.
    fn reordered(&self) -> impl Fn(usize, f64, f64) -> bool {
        let largest: Vec<f64> = self
            .first
            .iter()
            .map(|g| g.iter().flatten().fold(0.0f64, |a, v| a.max(v.abs())))
            .collect();
        move |i, a, b| {
            let dtype = self.inputs[self.tracked[i]].dtype();
            let slack = REORDERING_ULPS * epsilon(dtype) * largest[i] + smallest_normal(dtype);
            (a - b).abs() <= slack || a.is_nan() && b.is_nan() || a == b
        }
    }

    /// Tensor position, index and both values where `same` does not hold between the first gradients and `others`;
    /// a missing gradient reads as zeros.
    fn first_difference(
        &self,
        others: &[Gradient],
        same: impl Fn(usize, f64, f64) -> bool,
    ) -> Option<(usize, Vec<usize>, f64, f64)> {
        for (i, (first, other)) in self.first.iter().zip(others).enumerate() {
            let shape = self.inputs[self.tracked[i]].dims();
            let at = |gradient: &Gradient, k: usize| gradient.as_ref().map_or(0.0, |g| g[k]);
            for k in 0..shape.iter().product() {
                let (a, b) = (at(first, k), at(other, k));
                if !same(i, a, b) {
                    return Some((i, unravel(k, shape), a, b));
                }
            }
        }
        None
    }
}

/// Below this, `dtype` loses precision gradually.
fn smallest_normal(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::MIN_POSITIVE,
        DType::F16 => 2f64.powi(-14),
        _ => f64::from(f32::MIN_POSITIVE),
    }
}
