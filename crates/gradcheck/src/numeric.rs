//! Central and one-sided differences of the f64 evaluation, along one element or along a direction.

use crate::analytic::{Function, values};
use crate::error::SetupError;
use candle_core::{DType, Result, Tensor};
use std::cell::Cell;

/// A rounding-error bound counts this many units in the last place of every output that moved.
const NOISE_ULPS: f64 = 8.0;

/// The f64 evaluation of the function around one point.
pub(crate) struct Numeric<'a> {
    function: Function<'a>,
    /// The point: floating-point inputs in f64, the others as they came.
    pub(crate) inputs: Vec<Tensor>,
    step: f64,
    /// The output at the point.
    base: Vec<f64>,
    evaluations: Cell<usize>,
}

/// Displacement a unit step: which elements move, and how far.
pub(crate) type Direction = Vec<(usize, f64)>;

/// The outputs on both sides of the point, and how far each element really moved after rounding.
pub(crate) struct Sample {
    plus: Vec<f64>,
    minus: Vec<f64>,
    /// Element, way up, way down.
    moved: Vec<(usize, f64, f64)>,
    /// Twice the step: what a directional derivative is divided by.
    span: f64,
}

/// A numeric derivative and a bound of its rounding error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Estimate {
    pub(crate) value: f64,
    pub(crate) noise: f64,
}

/// The one-sided derivatives of one element.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OneSided {
    pub(crate) forward: f64,
    pub(crate) backward: f64,
    /// The sums of the smaller and of the larger one-sided derivative of every output: any subgradient lies between.
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl<'a> Numeric<'a> {
    pub(crate) fn new(
        function: Function<'a>,
        inputs: &[Tensor],
        step: f64,
        output_shape: &[usize],
    ) -> Result<Self> {
        let to_f64 = |t: &Tensor| {
            if t.dtype().is_float() {
                t.detach().to_dtype(DType::F64)?.contiguous()
            } else {
                Ok(t.detach())
            }
        };
        let inputs = inputs.iter().map(to_f64).collect::<Result<Vec<_>>>()?;
        let output = function(&inputs)?;
        if output.dims() != output_shape {
            let (low, reference) = (output_shape.to_vec(), output.dims().to_vec());
            return Err(SetupError::OutputShapes { low, reference }.into());
        }
        let base = values(&output)?;
        Ok(Self {
            function,
            inputs,
            step,
            base,
            evaluations: Cell::new(1),
        })
    }

    pub(crate) fn evaluations(&self) -> usize {
        self.evaluations.get()
    }

    /// The values of one input at the point.
    pub(crate) fn point(&self, tensor: usize) -> Result<Vec<f64>> {
        values(&self.inputs[tensor])
    }

    /// The displacement of element `k` with value `x`: its magnitude, at least one.
    pub(crate) fn reach(x: f64) -> f64 {
        x.abs().max(1.0)
    }

    fn evaluate(&self, tensor: usize, moved: &[f64]) -> Result<Vec<f64>> {
        let original = &self.inputs[tensor];
        let mut inputs = self.inputs.clone();
        inputs[tensor] = Tensor::from_slice(moved, original.shape(), original.device())?;
        self.evaluations.set(self.evaluations.get() + 1);
        values(&(self.function)(&inputs)?)
    }

    /// Evaluates the function on both sides of `point`, at `step / shrink` along `direction`.
    pub(crate) fn sample(
        &self,
        tensor: usize,
        point: &[f64],
        direction: &Direction,
        shrink: f64,
    ) -> Result<Sample> {
        let h = self.step / shrink;
        let (mut up, mut down) = (point.to_vec(), point.to_vec());
        let mut moved = Vec::with_capacity(direction.len());
        for &(k, d) in direction {
            up[k] = point[k] + h * d;
            down[k] = point[k] - h * d;
            moved.push((k, up[k] - point[k], point[k] - down[k]));
        }
        let plus = self.evaluate(tensor, &up)?;
        let minus = self.evaluate(tensor, &down)?;
        Ok(Sample {
            plus,
            minus,
            moved,
            span: 2.0 * h,
        })
    }

    /// The derivative with respect to the one element that `sample` moved, contracted with `upstream`.
    pub(crate) fn element(&self, sample: &Sample, upstream: &[f64]) -> Estimate {
        let span: f64 = sample.moved.iter().map(|(_, up, down)| up + down).sum();
        sample.quotient(upstream, span)
    }

    /// The one-sided derivatives of the one element that `sample` moved, contracted with `upstream`.
    pub(crate) fn one_sided(&self, sample: &Sample, upstream: &[f64]) -> OneSided {
        let (up, down) = sample
            .moved
            .first()
            .map_or((1.0, 1.0), |&(_, up, down)| (up, down));
        let mut sides = OneSided {
            forward: 0.0,
            backward: 0.0,
            lowest: 0.0,
            highest: 0.0,
        };
        for (j, &u) in upstream.iter().enumerate().filter(|(_, u)| **u != 0.0) {
            let forward = u * difference(sample.plus[j], self.base[j]) / up;
            let backward = u * difference(self.base[j], sample.minus[j]) / down;
            sides.forward += forward;
            sides.backward += backward;
            sides.lowest += forward.min(backward);
            sides.highest += forward.max(backward);
        }
        sides
    }
}

impl Sample {
    /// The derivative along the direction, contracted with `upstream`.
    pub(crate) fn along(&self, upstream: &[f64]) -> Estimate {
        self.quotient(upstream, self.span)
    }

    /// What `gradient` predicts for [`Sample::along`], for the way each element really moved.
    pub(crate) fn predicted(&self, gradient: &[f64]) -> f64 {
        self.moved
            .iter()
            .map(|&(k, up, down)| gradient[k] * ((up + down) / self.span))
            .sum()
    }

    fn quotient(&self, upstream: &[f64], span: f64) -> Estimate {
        let (mut sum, mut squares) = (0.0, 0.0);
        for (j, &u) in upstream.iter().enumerate().filter(|(_, u)| **u != 0.0) {
            let change = difference(self.plus[j], self.minus[j]);
            if change != 0.0 {
                sum += u * change;
                squares += (u * self.plus[j].abs().max(self.minus[j].abs())).powi(2);
            }
        }
        Estimate {
            value: sum / span,
            noise: NOISE_ULPS * f64::EPSILON * squares.sqrt() / span,
        }
    }
}

/// `a - b`, with equal infinities not having moved.
fn difference(a: f64, b: f64) -> f64 {
    if a == b { 0.0 } else { a - b }
}
