//! Comparing numbers: absolute plus relative, NaN equal to NaN, infinities equal to themselves.

use crate::case::Outcome;

/// The largest error so far and the first difference that is too large.
pub(super) struct Comparison {
    tolerance: f64,
    max_error: f64,
    reason: Option<String>,
}

impl Comparison {
    pub(super) fn new(tolerance: f64) -> Self {
        Self {
            tolerance,
            max_error: 0.0,
            reason: None,
        }
    }

    /// Compares what was `found` for `what` with what was `expected`.
    pub(super) fn slices(&mut self, what: &str, found: &[f64], expected: &[f64]) {
        if found.len() != expected.len() {
            let reason = format!(
                "{what} has {} elements, expected {}",
                found.len(),
                expected.len()
            );
            self.reason.get_or_insert(reason);
            return;
        }
        for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            if found == expected || found.is_nan() && expected.is_nan() {
                continue;
            }
            let error = (found - expected).abs();
            if error > self.max_error || !error.is_finite() {
                self.max_error = error;
            }
            let close = error <= self.tolerance * (1.0 + expected.abs()) && error.is_finite();
            if !close && self.reason.is_none() {
                let tolerance = self.tolerance;
                self.reason = Some(format!(
                    "{what} at element {i} is {found:e}, expected {expected:e}: error {error:e}, tolerance {tolerance:e} \
                     absolute plus relative"
                ));
            }
        }
    }

    /// Compares shapes.
    pub(super) fn shapes(&mut self, what: &str, found: &[usize], expected: &[usize]) {
        if found != expected {
            self.reason
                .get_or_insert(format!("{what} has shape {found:?}, expected {expected:?}"));
        }
    }

    pub(super) fn outcome(self) -> Outcome {
        let max_error = self.max_error;
        self.reason
            .map_or(Outcome::Passed { max_error }, |reason| Outcome::Failed {
                max_error,
                reason,
            })
    }
}
