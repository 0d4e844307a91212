//! Negative controls: gradients known to be wrong, which the checks must catch. A case passes when it does.

use super::inputs::values;
use crate::case::{Case, Outcome};
use candle_core::{DType, Result, Tensor};
use candle_gradcheck::{Failure, GradCheck};

type Wrong = fn(&Tensor) -> Result<Tensor>;

/// Functions of a (2, 3, 4, 6) tensor whose gradient is wrong.
const CONTROLS: [(&str, &str, Wrong); 3] = [
    // A unique 2x2 maximum gets the gradient multiplied by the mean of the mask, a quarter.
    ("candle max_pool2d is caught", "candle max_pool2d", |x| {
        x.max_pool2d(2)
    }),
    ("a quarter of the gradient is caught", "planted bug", |x| {
        let square = x.sqr()?;
        (&square * 0.25)? + (&square * 0.75)?.detach()
    }),
    ("a cut graph is caught", "planted bug", |x| x.detach().sqr()),
];

pub(super) fn cases() -> Vec<Case> {
    let control = |(name, op, wrong): (&str, &str, Wrong)| {
        Case::new(format!("control/{name}"), op, DType::F64, move |device| {
            let x = values(&[2, 3, 4, 6], DType::F64, 0, device)?;
            let report = GradCheck::new()
                .names(["x"])
                .check(|i| wrong(&i[0]), &[x])?;
            let caught =
                |f: &Failure| matches!(f, Failure::Mismatch { .. } | Failure::Missing { .. });
            Ok(if report.failures.iter().any(caught) {
                Outcome::Passed { max_error: 0.0 }
            } else {
                let reason = "a gradient known to be wrong passed the check".to_string();
                Outcome::Failed {
                    max_error: report.max_error(),
                    reason,
                }
            })
        })
    };
    CONTROLS.into_iter().map(control).collect()
}
