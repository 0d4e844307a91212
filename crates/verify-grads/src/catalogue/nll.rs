//! Negative log-likelihood of log-probabilities.

use super::form::Form;
use super::inputs::{positive, targets, values};
use super::{FLOATS, REDUCTIONS};
use crate::case::Case;
use candle_core::Tensor;
use candle_gradcheck::GradCheck;
use candle_losses::Nll;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in FLOATS {
        for form in Form::all(dtype) {
            for (name, reduction) in REDUCTIONS {
                for weighted in [false, true] {
                    let options = if weighted { "weight_ignore" } else { "plain" };
                    let name = format!("nll/{}/{options}/{name}/{}", form.name(), dtype.as_str());
                    cases.push(form.mark(Case::new(name, "nll", dtype, move |device| {
                        let ignored = weighted.then_some(-100);
                        let x = values(&[5, 4, 2], dtype, 0, device)?;
                        let y = targets(&[5, 2], 4, ignored, device)?;
                        // The weight has the dtype of the input; in the f64 evaluation it has the same, rounded, numbers.
                        let weight = positive(&[4], dtype, 3, device)?;
                        let run = |i: &[Tensor]| {
                            let mut loss = Nll::new().reduction(reduction);
                            if weighted {
                                loss = loss
                                    .weight(weight.to_dtype(i[0].dtype())?)
                                    .ignore_index(-100);
                            }
                            if form.is_fused() {
                                loss.forward(&i[0], &i[1])
                            } else {
                                loss.composed(&i[0], &i[1])
                            }
                        };
                        let check = GradCheck::new().names(["log_probabilities"]);
                        form.check(check, run, &[x, y])
                    })));
                }
            }
        }
    }
    cases
}
