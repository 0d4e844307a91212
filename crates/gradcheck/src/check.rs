//! The check itself: backward passes, comparison with differences, protocol.

use crate::analytic::{Backward, Function, Gradient, Graph, is_supported, upstream};
use crate::compare::{Comparison, Row};
use crate::error::{Failure, SetupError};
use crate::layouts::InputLayout;
use crate::numeric::Numeric;
use crate::options::{GradCheck, Mode, Tolerance};
use crate::protocol::Protocol;
use crate::report::Report;
use candle_core::{DType, Result, Tensor};

/// Outputs up to which a dense check also selects every output on its own: one backward pass each.
const DENSE_OUTPUTS: usize = 64;

impl GradCheck {
    /// Checks the gradient of `function` at `inputs`, with respect to every differentiable input.
    ///
    /// The output may have any shape; it is contracted with a fixed, random, non-unit upstream gradient, scalars too.
    /// In a dense check of at most 64 outputs each output element is also checked on its own: the full Jacobian.
    /// Inputs of f32, f16 and bf16 are differentiated in their own dtype and compared with the f64 evaluation of the
    /// same function at the same (exactly converted) point, so `function` must follow the dtype of its inputs;
    /// use [`check_with_reference`](Self::check_with_reference) where it does not.
    ///
    /// # Errors
    /// An error means that nothing could be checked: the function failed on the contiguous inputs, an option is out of
    /// range, or no input is differentiable. What is wrong with a gradient is in the [`Report`].
    pub fn check<F>(&self, function: F, inputs: &[Tensor]) -> Result<Report>
    where
        F: Fn(&[Tensor]) -> Result<Tensor>,
    {
        self.run(&function, &function, inputs)
    }

    /// Like [`check`](Self::check), with a function of its own for the f64 evaluation.
    ///
    /// `reference` gets the inputs converted to f64 and must return the same quantity in the same shape. For inputs
    /// checked by projection in a lower precision it has to be differentiable too.
    ///
    /// # Errors
    /// As for [`check`](Self::check).
    pub fn check_with_reference<F, R>(
        &self,
        function: F,
        reference: R,
        inputs: &[Tensor],
    ) -> Result<Report>
    where
        F: Fn(&[Tensor]) -> Result<Tensor>,
        R: Fn(&[Tensor]) -> Result<Tensor>,
    {
        self.run(&function, &reference, inputs)
    }

    fn run(
        &self,
        function: Function<'_>,
        reference: Function<'_>,
        inputs: &[Tensor],
    ) -> Result<Report> {
        self.validate()?;
        let tracked = self.tracked(inputs)?;
        let names: Vec<String> = tracked.iter().map(|&i| self.name_of(i)).collect();
        let graph = Graph::forward(function, inputs, &tracked, InputLayout::Contiguous)?;
        let outputs = graph.output.elem_count();
        let weights = upstream(self.seed, outputs);
        let mut report = Report {
            inputs: Vec::new(),
            failures: Vec::new(),
            evaluations: 0,
        };
        let gradients = match graph.backward(&weights, &names, InputLayout::Contiguous)? {
            Backward::Gradients(gradients) => gradients,
            Backward::Broken(failure) => {
                report.failures.push(failure);
                return Ok(report);
            }
        };

        let numeric = Numeric::new(reference, inputs, self.step, graph.output.dims())?;
        let low_precision = inputs
            .iter()
            .any(|t| t.dtype().is_float() && t.dtype() != DType::F64);
        let modes: Vec<Mode> = tracked.iter().map(|&i| self.mode_for(&inputs[i])).collect();
        let jacobian = if modes.contains(&Mode::Dense) && (2..=DENSE_OUTPUTS).contains(&outputs) {
            self.output_by_output(&graph, &weights, &names)?
        } else {
            Vec::new()
        };
        let proven = if low_precision && modes.contains(&Mode::Projection) {
            let graph = Graph::forward(
                reference,
                &numeric.inputs,
                &tracked,
                InputLayout::Contiguous,
            )?;
            match graph.backward(&weights, &names, InputLayout::Contiguous)? {
                Backward::Gradients(gradients) => Some(gradients),
                Backward::Broken(failure) => {
                    report.failures.push(failure);
                    return Ok(report);
                }
            }
        } else {
            None
        };

        let dtype = self.loosest(inputs, &tracked);
        for (i, &input) in tracked.iter().enumerate() {
            let (name, elements) = (names[i].clone(), inputs[input].elem_count());
            let row = |output, upstream: &[f64], gradients: &[Gradient]| Row {
                output,
                upstream: upstream.to_vec(),
                gradient: gradients[i].clone().unwrap_or_else(|| vec![0.0; elements]),
                missing: gradients[i].is_none(),
            };
            let whole = row(None, &weights, &gradients);
            let new = |dtype: DType, tolerance: Tolerance| {
                Comparison::new(
                    &numeric,
                    input,
                    name.clone(),
                    dtype,
                    tolerance,
                    self.max_kinks,
                )
            };
            let mut comparison = new(dtype, self.tolerance_for(dtype))?;
            match (modes[i], &proven) {
                (Mode::Projection, Some(proven)) => {
                    let in_f64 = row(None, &weights, proven);
                    let mut directions = new(DType::F64, self.tolerance_for(DType::F64))?;
                    directions.projection(&in_f64, self.directions, self.seed)?;
                    let (proof, failures) = directions.finish();
                    report.failures.extend(failures);
                    if proof.max_error.is_finite() {
                        comparison.against(&whole, &in_f64.gradient)?;
                    }
                    comparison.by_projection();
                }
                (Mode::Projection, None) => {
                    comparison.projection(&whole, self.directions, self.seed)?
                }
                _ => {
                    let selected = jacobian
                        .iter()
                        .map(|(j, upstream, gradients)| row(Some(*j), upstream, gradients));
                    let rows: Vec<Row> = std::iter::once(whole).chain(selected).collect();
                    comparison.dense(&rows)?;
                }
            }
            let (mut input_report, failures) = comparison.finish();
            input_report.dtype = inputs[input].dtype();
            report.inputs.push(input_report);
            report.failures.extend(failures);
        }
        report.evaluations = numeric.evaluations();

        let protocol = Protocol {
            function,
            inputs,
            tracked: &tracked,
            names: &names,
            upstream: &weights,
            graph: &graph,
            first: &gradients,
        };
        report.failures.extend(protocol.repeats()?);
        report.failures.extend(protocol.is_linear()?);
        // A cut graph has been reported; through a view Candle would panic over it.
        let cut = report
            .failures
            .iter()
            .any(|f| matches!(f, Failure::Missing { .. }));
        if self.strided && !cut {
            report.failures.extend(protocol.ignores_layout()?);
        }
        if !cut {
            report.failures.extend(protocol.ignores_tracking()?);
        }
        tracing::debug!(
            passed = report.passed(),
            inputs = report.inputs.len(),
            evaluations = report.evaluations,
            max_error = report.max_error(),
            "gradient check"
        );
        Ok(report)
    }

    /// The inputs to differentiate.
    fn tracked(&self, inputs: &[Tensor]) -> std::result::Result<Vec<usize>, SetupError> {
        let count = inputs.len();
        let tracked: Vec<usize> = match &self.differentiable {
            None => (0..count)
                .filter(|&i| is_supported(inputs[i].dtype()))
                .collect(),
            Some(chosen) => {
                let mut chosen = chosen.clone();
                chosen.sort_unstable();
                chosen.dedup();
                for &index in &chosen {
                    let input = inputs
                        .get(index)
                        .ok_or(SetupError::NoSuchInput { index, count })?;
                    if !is_supported(input.dtype()) {
                        let (tensor, dtype) = (self.name_of(index), input.dtype().as_str());
                        return Err(SetupError::NotDifferentiable { tensor, dtype });
                    }
                }
                chosen
            }
        };
        if tracked.is_empty() {
            Err(SetupError::NothingToCheck { count })
        } else {
            Ok(tracked)
        }
    }

    fn mode_for(&self, input: &Tensor) -> Mode {
        match self.mode {
            Mode::Auto if input.elem_count() <= self.dense_limit => Mode::Dense,
            Mode::Auto => Mode::Projection,
            chosen => chosen,
        }
    }

    /// The dtype of the tracked inputs with the largest tolerance: rounding in one input reaches every gradient.
    fn loosest(&self, inputs: &[Tensor], tracked: &[usize]) -> DType {
        let dtypes = tracked.iter().map(|&i| inputs[i].dtype());
        dtypes
            .max_by(|a, b| {
                self.tolerance_for(*a)
                    .rtol
                    .total_cmp(&self.tolerance_for(*b).rtol)
            })
            .unwrap_or(DType::F64)
    }

    /// One backward pass an output element, its upstream gradient zero for all the others.
    #[allow(clippy::type_complexity)]
    fn output_by_output(
        &self,
        graph: &Graph,
        weights: &[f64],
        names: &[String],
    ) -> Result<Vec<(usize, Vec<f64>, Vec<Gradient>)>> {
        let mut rows = Vec::with_capacity(weights.len());
        for (j, &weight) in weights.iter().enumerate() {
            let mut selected = vec![0.0; weights.len()];
            selected[j] = weight;
            // A pass that breaks under one output has broken under all of them, which is reported already.
            if let Backward::Gradients(gradients) =
                graph.backward(&selected, names, InputLayout::Contiguous)?
            {
                rows.push((j, selected, gradients));
            }
        }
        Ok(rows)
    }
}
