//! Tells kinks from bugs: what remains of a disagreement when the step is made smaller.

use crate::numeric::{Numeric, Sample};
use candle_core::Result;

/// Steps tried after a disagreement: the first one, then a quarter of the one before, down to 1/256.
const SHRINKS: [f64; 5] = [1.0, 4.0, 16.0, 64.0, 256.0];

/// The tolerance of an element as a function of its numeric value, rounding noise aside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    pub(crate) rtol: f64,
    /// `atol` times the largest gradient element, and a floor for what the dtype cannot represent.
    pub(crate) absolute: f64,
}

impl Allowance {
    pub(crate) fn at(&self, numeric: f64) -> f64 {
        self.absolute + self.rtol * numeric.abs()
    }
}

/// What a disagreement turned out to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    /// With a smaller step the two agree: a kink or strong curvature lay within the first step.
    Agrees { numeric: f64 },
    /// The one-sided derivatives stay apart, or the estimates do not settle, and the analytic value lies between.
    Kink,
    /// The numeric estimate has settled on another value than the analytic one.
    Bug { numeric: f64, tolerance: f64 },
}

/// Judges element `k` of input `tensor`, whose analytic gradient under `upstream` disagrees with the numeric one.
///
/// Where the function is smooth, forward and backward differences approach each other in proportion to the step. At a
/// kink they stay apart however small the step, and at a jump they move apart; there an analytic value between the two
/// is a legitimate subgradient and one outside is not. A kink merely near the point disappears with the step.
pub(crate) fn judge(
    numeric: &Numeric<'_>,
    tensor: usize,
    point: &[f64],
    k: usize,
    analytic: f64,
    upstream: &[f64],
    allowance: Allowance,
) -> Result<Verdict> {
    let direction = vec![(k, Numeric::reach(point[k]))];
    let mut samples: Vec<Sample> = Vec::with_capacity(SHRINKS.len());
    for shrink in SHRINKS {
        let sample = numeric.sample(tensor, point, &direction, shrink)?;
        let estimate = numeric.element(&sample, upstream);
        if (analytic - estimate.value).abs() <= allowance.at(estimate.value) + estimate.noise {
            return Ok(Verdict::Agrees {
                numeric: estimate.value,
            });
        }
        samples.push(sample);
    }
    let [.., coarse, fine] = samples.as_slice() else {
        unreachable!("five steps give five samples");
    };
    let (before, last) = (
        numeric.element(coarse, upstream),
        numeric.element(fine, upstream),
    );
    let tolerance = allowance.at(last.value) + last.noise;
    let (coarse, fine) = (
        numeric.one_sided(coarse, upstream),
        numeric.one_sided(fine, upstream),
    );
    let gap = fine.highest - fine.lowest;
    // Smoothness would shrink the gap by four from one step to the next.
    let apart = gap > tolerance && gap > 0.5 * (coarse.highest - coarse.lowest);
    let between = (fine.lowest - tolerance..=fine.highest + tolerance).contains(&analytic);
    // A settled estimate moves far less than what it is off by.
    let settled =
        (last.value - before.value).abs() <= tolerance.max(0.1 * (analytic - last.value).abs());
    if (apart && between) || (!apart && !settled) {
        Ok(Verdict::Kink)
    } else {
        Ok(Verdict::Bug {
            numeric: last.value,
            tolerance,
        })
    }
}
