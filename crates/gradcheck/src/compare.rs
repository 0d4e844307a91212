//! The comparison of one input's analytic gradient with the numeric one: dense, by projection, or with a gradient that
//! has been proven in f64.

use crate::error::Failure;
use crate::judge::{Allowance, Verdict, judge};
use crate::numeric::{Direction, Estimate, Numeric};
use crate::options::{Mode, Tolerance};
use crate::random::SplitMix64;
use crate::report::{Element, InputReport};
use candle_core::{DType, Result};

/// Kinks allowed in a tensor of any size.
const FREE_KINKS: usize = 4;
/// Bugs judged one by one; later disagreements in the same tensor are counted without being looked into.
const JUDGED_BUGS: usize = 4;
/// Kinks that a projection works around before it gives up: each costs a bisection.
const PROJECTION_KINKS: usize = 64;
/// Steps tried for a direction, as divisors of the first one.
const DIRECTION_SHRINKS: [f64; 4] = [1.0, 4.0, 16.0, 64.0];
/// The step of the bisection: small, so that few kinks lie within it.
const BISECTION_SHRINK: f64 = 16.0;

/// An analytic gradient under one upstream gradient.
pub(crate) struct Row {
    /// The output element the upstream gradient selects; none when it weighs all of them.
    pub(crate) output: Option<usize>,
    pub(crate) upstream: Vec<f64>,
    pub(crate) gradient: Vec<f64>,
    /// The backward pass gave no gradient; `gradient` holds zeros in its place.
    pub(crate) missing: bool,
}

/// One input under comparison, collecting what is found.
pub(crate) struct Comparison<'a> {
    numeric: &'a Numeric<'a>,
    tolerance: Tolerance,
    floor: f64,
    max_kinks: f64,
    shape: Vec<usize>,
    point: Vec<f64>,
    is_kink: Vec<bool>,
    is_wrong: Vec<bool>,
    /// Disagreements that were looked into and turned out to be bugs.
    judged: usize,
    /// The worst mismatch so far and by how much it exceeds its tolerance.
    mismatch: Option<(f64, Failure)>,
    failures: Vec<Failure>,
    report: InputReport,
}

impl<'a> Comparison<'a> {
    pub(crate) fn new(
        numeric: &'a Numeric<'a>,
        tensor: usize,
        name: String,
        dtype: DType,
        tolerance: Tolerance,
        max_kinks: f64,
    ) -> Result<Self> {
        let point = numeric.point(tensor)?;
        let shape = numeric.inputs[tensor].dims().to_vec();
        let finite = point.iter().filter(|x| x.is_finite()).count();
        let report = InputReport {
            tensor,
            name,
            shape: shape.clone(),
            dtype,
            mode: Mode::Dense,
            checked: finite,
            kinks: 0,
            unmovable: point.len() - finite,
            max_error: 0.0,
            worst: None,
        };
        Ok(Self {
            numeric,
            tolerance,
            floor: floor(dtype),
            max_kinks,
            shape,
            is_kink: vec![false; point.len()],
            is_wrong: vec![false; point.len()],
            judged: 0,
            point,
            mismatch: None,
            failures: Vec::new(),
            report,
        })
    }

    /// Compares every element with its own central difference, under the upstream gradient of every row.
    pub(crate) fn dense(&mut self, rows: &[Row]) -> Result<()> {
        let count = self.point.len();
        let mut estimates: Vec<Vec<Option<Estimate>>> = vec![Vec::with_capacity(count); rows.len()];
        for k in 0..count {
            if !self.point[k].is_finite() {
                estimates.iter_mut().for_each(|row| row.push(None));
                continue;
            }
            let direction = vec![(k, Numeric::reach(self.point[k]))];
            let sample = self
                .numeric
                .sample(self.report.tensor, &self.point, &direction, 1.0)?;
            for (row, estimates) in rows.iter().zip(&mut estimates) {
                estimates.push(Some(self.numeric.element(&sample, &row.upstream)));
            }
        }
        for (row, estimates) in rows.iter().zip(&estimates) {
            self.elements(row, estimates)?;
        }
        Ok(())
    }

    /// Says in the report that the numeric gradient came from a projection.
    pub(crate) fn by_projection(&mut self) {
        self.report.mode = Mode::Projection;
    }

    /// Compares every element with an f64 gradient that a projection has proven.
    pub(crate) fn against(&mut self, row: &Row, proven: &[f64]) -> Result<()> {
        let estimates: Vec<_> = (self.point.iter().zip(proven))
            .map(|(x, &value)| x.is_finite().then_some(Estimate { value, noise: 0.0 }))
            .collect();
        self.elements(row, &estimates)
    }

    fn elements(&mut self, row: &Row, estimates: &[Option<Estimate>]) -> Result<()> {
        let known = estimates
            .iter()
            .flatten()
            .map(|e| e.value.abs())
            .filter(|v| v.is_finite());
        let largest = known.fold(0.0, f64::max);
        let allowance = Allowance {
            rtol: self.tolerance.rtol,
            absolute: self.tolerance.atol * largest + self.floor,
        };
        for (k, (&analytic, estimate)) in row.gradient.iter().zip(estimates).enumerate() {
            let Estimate { value, noise } = estimate.unwrap_or(Estimate {
                value: f64::NAN,
                noise: 0.0,
            });
            if !analytic.is_finite() {
                self.not_finite(k, analytic, value);
            } else if estimate.is_none() {
                continue;
            } else if !value.is_finite() {
                self.function_not_finite(k, analytic, value);
            } else if (analytic - value).abs() <= allowance.at(value) + noise {
                self.note(k, analytic, value);
            } else if self.judged >= JUDGED_BUGS {
                self.is_wrong[k] = true;
            } else {
                self.disagreement(row, k, allowance)?;
            }
        }
        Ok(())
    }

    fn disagreement(&mut self, row: &Row, k: usize, allowance: Allowance) -> Result<()> {
        let analytic = row.gradient[k];
        let verdict = judge(
            self.numeric,
            self.report.tensor,
            &self.point,
            k,
            analytic,
            &row.upstream,
            allowance,
        )?;
        match verdict {
            Verdict::Agrees { numeric } => self.note(k, analytic, numeric),
            Verdict::Kink => self.is_kink[k] = true,
            Verdict::Bug { numeric, tolerance } => self.bug(row, k, numeric, tolerance),
        }
        Ok(())
    }

    fn bug(&mut self, row: &Row, k: usize, numeric: f64, tolerance: f64) {
        self.judged += 1;
        self.is_wrong[k] = true;
        let analytic = row.gradient[k];
        self.note(k, analytic, numeric);
        let error = (analytic - numeric).abs();
        let excess = error / tolerance;
        if self
            .mismatch
            .as_ref()
            .is_some_and(|(worst, _)| *worst >= excess)
        {
            return;
        }
        let (tensor, index, checked) = (
            self.report.name.clone(),
            unravel(k, &self.shape),
            self.report.checked,
        );
        let failure = if row.missing {
            Failure::Missing {
                tensor,
                index,
                numeric,
            }
        } else {
            let output = row.output;
            Failure::Mismatch {
                tensor,
                index,
                output,
                analytic,
                numeric,
                error,
                tolerance,
                wrong: 0,
                checked,
            }
        };
        self.mismatch = Some((excess, failure));
    }

    /// Compares the gradient with numeric derivatives along random directions, and looks for the element to blame
    /// where a direction disagrees. One wrong element among many changes every direction.
    pub(crate) fn projection(&mut self, row: &Row, directions: usize, seed: u64) -> Result<()> {
        self.report.mode = Mode::Projection;
        for (k, &analytic) in row.gradient.iter().enumerate() {
            if !analytic.is_finite() {
                self.not_finite(k, analytic, f64::NAN);
            }
        }
        if !self.failures.is_empty() {
            return Ok(());
        }
        let mut rng = SplitMix64::new(seed ^ 0x5eed_d14e_c710_4a11);
        for _ in 0..directions {
            let mut direction: Direction = (self.point.iter().enumerate())
                .map(|(k, &x)| (k, rng.direction_element() * Numeric::reach(x)))
                .filter(|&(k, _)| self.point[k].is_finite() && !self.is_kink[k])
                .collect();
            while let Some(error) = self.direction_error(row, &direction)? {
                if !error.is_finite() {
                    self.function_not_finite(direction[0].0, row.gradient[direction[0].0], error);
                    return Ok(());
                }
                let k = self.bisect(row, &direction)?;
                let largest = row.gradient.iter().fold(0.0f64, |a, g| a.max(g.abs()));
                let Tolerance { rtol, atol } = self.tolerance;
                let allowance = Allowance {
                    rtol,
                    absolute: atol * largest + self.floor,
                };
                let tensor = self.report.tensor;
                match judge(
                    self.numeric,
                    tensor,
                    &self.point,
                    k,
                    row.gradient[k],
                    &row.upstream,
                    allowance,
                )? {
                    Verdict::Bug { numeric, tolerance } => {
                        self.bug(row, k, numeric, tolerance);
                        return Ok(());
                    }
                    Verdict::Kink => {
                        self.is_kink[k] = true;
                        direction.retain(|&(other, _)| other != k);
                        if self.is_kink.iter().filter(|&&kink| kink).count() > PROJECTION_KINKS {
                            return Ok(());
                        }
                    }
                    Verdict::Agrees { .. } => {
                        self.unlocated(row, &direction, k)?;
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// None when the direction agrees at some step, else the error at the smallest.
    fn direction_error(&mut self, row: &Row, direction: &Direction) -> Result<Option<f64>> {
        if direction.is_empty() {
            return Ok(None);
        }
        let length = direction.iter().map(|(_, d)| d * d).sum::<f64>().sqrt();
        let mut last = 0.0;
        for shrink in DIRECTION_SHRINKS {
            let (error, tolerance) = self.along(row, direction, shrink)?;
            if error <= tolerance {
                self.report.max_error = self.report.max_error.max(error / length);
                return Ok(None);
            }
            last = error;
        }
        Ok(Some(last))
    }

    /// Error and tolerance of the derivative along `direction`.
    fn along(&self, row: &Row, direction: &Direction, shrink: f64) -> Result<(f64, f64)> {
        let sample = self
            .numeric
            .sample(self.report.tensor, &self.point, direction, shrink)?;
        let Estimate { value, noise } = sample.along(&row.upstream);
        let error = (sample.predicted(&row.gradient) - value).abs();
        // Independent errors add up as their squares do.
        let root_sum =
            |terms: &mut dyn Iterator<Item = f64>| terms.map(|t| t * t).sum::<f64>().sqrt();
        let share = root_sum(&mut direction.iter().map(|&(k, d)| row.gradient[k] * d));
        let length = root_sum(&mut direction.iter().map(|&(_, d)| d));
        let largest = direction
            .iter()
            .fold(0.0f64, |a, &(k, _)| a.max(row.gradient[k].abs()));
        let Tolerance { rtol, atol } = self.tolerance;
        Ok((
            error,
            rtol * share + (atol * largest + self.floor) * length + noise,
        ))
    }

    /// Follows the half with the larger error down to one element: about `4 log2(n)` evaluations.
    fn bisect(&self, row: &Row, direction: &Direction) -> Result<usize> {
        let mut rest = direction.clone();
        while rest.len() > 1 {
            let upper = rest.split_off(rest.len() / 2);
            let excess = |half: &Direction| -> Result<f64> {
                let (error, tolerance) = self.along(row, half, BISECTION_SHRINK)?;
                Ok(error / tolerance.max(f64::MIN_POSITIVE))
            };
            if excess(&upper)? > excess(&rest)? {
                rest = upper;
            }
        }
        Ok(rest[0].0)
    }

    fn unlocated(&mut self, row: &Row, direction: &Direction, k: usize) -> Result<()> {
        let sample =
            self.numeric
                .sample(self.report.tensor, &self.point, direction, BISECTION_SHRINK)?;
        let (numeric, analytic) = (
            sample.along(&row.upstream).value,
            sample.predicted(&row.gradient),
        );
        let (error, tolerance) = self.along(row, direction, BISECTION_SHRINK)?;
        let length = direction.iter().map(|(_, d)| d * d).sum::<f64>().sqrt();
        self.report.max_error = self.report.max_error.max(error / length);
        let (tensor, index) = (self.report.name.clone(), unravel(k, &self.shape));
        self.failures.push(Failure::Projection {
            tensor,
            index,
            analytic,
            numeric,
            error,
            tolerance,
        });
        Ok(())
    }

    fn note(&mut self, k: usize, analytic: f64, numeric: f64) {
        let error = (analytic - numeric).abs();
        if self.report.worst.is_none() || error > self.report.max_error {
            self.report.max_error = self.report.max_error.max(error);
            let (tensor, index) = (self.report.tensor, unravel(k, &self.shape));
            self.report.worst = Some(Element {
                tensor,
                index,
                analytic,
                numeric,
                error,
            });
        }
    }

    fn not_finite(&mut self, k: usize, analytic: f64, numeric: f64) {
        self.report.max_error = f64::NAN;
        if !self
            .failures
            .iter()
            .any(|f| matches!(f, Failure::NotFinite { .. }))
        {
            let (tensor, index) = (self.report.name.clone(), unravel(k, &self.shape));
            self.failures.push(Failure::NotFinite {
                tensor,
                index,
                analytic,
                numeric,
            });
        }
    }

    fn function_not_finite(&mut self, k: usize, analytic: f64, numeric: f64) {
        if !self
            .failures
            .iter()
            .any(|f| matches!(f, Failure::FunctionNotFinite { .. }))
        {
            let (tensor, index) = (self.report.name.clone(), unravel(k, &self.shape));
            self.failures.push(Failure::FunctionNotFinite {
                tensor,
                index,
                analytic,
                numeric,
            });
        }
    }

    /// The report of this input and everything that is wrong with it.
    pub(crate) fn finish(mut self) -> (InputReport, Vec<Failure>) {
        if let Some((_, mut failure)) = self.mismatch {
            if let Failure::Mismatch { wrong, .. } = &mut failure {
                *wrong = self.is_wrong.iter().filter(|&&wrong| wrong).count();
            }
            self.failures.push(failure);
        }
        self.report.kinks = self.is_kink.iter().filter(|&&kink| kink).count();
        let (kinks, checked, allowed) = (self.report.kinks, self.report.checked, self.max_kinks);
        if kinks > PROJECTION_KINKS && self.report.mode == Mode::Projection
            || kinks > FREE_KINKS && kinks as f64 > allowed * checked as f64
        {
            let tensor = self.report.name.clone();
            self.failures.push(Failure::TooManyKinks {
                tensor,
                kinks,
                checked,
                allowed,
            });
        }
        (self.report, self.failures)
    }
}

/// What a gradient of `dtype` cannot resolve, whatever its size: a hundredth of the dtype's epsilon.
pub(crate) fn floor(dtype: DType) -> f64 {
    0.01 * epsilon(dtype)
}

/// The distance from 1 to the next number.
pub(crate) fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(f32::EPSILON),
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        _ => f64::EPSILON,
    }
}

/// The index of the `flat`-th element, row-major.
pub(crate) fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, &size) in index.iter_mut().zip(shape).rev() {
        *i = flat % size;
        flat /= size;
    }
    index
}
