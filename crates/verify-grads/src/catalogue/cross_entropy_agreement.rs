//! Cross entropy by different ways: fused and composed, backward and value-and-gradient, all must agree.

use super::cross_entropy::{SETTINGS, Setting, classes, target_shape};
use super::inputs::{positive, shape_name, targets, values};
use super::{FLOATS, REDUCTIONS};
use crate::case::{Case, Outcome};
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_losses::{CrossEntropy, Reduction};

/// A loss and its gradient with respect to the logits, in f64.
struct Both {
    value: Vec<f64>,
    gradient: Vec<f64>,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for setting in SETTINGS {
        for (name, reduction) in REDUCTIONS {
            for dtype in FLOATS {
                for shape in [&[5, 9][..], &[2, 4, 3], &[16, 65]] {
                    cases.push(case(setting, name, reduction, dtype, shape));
                }
            }
        }
    }
    cases
}

fn case(setting: Setting, name: &str, reduction: Reduction, dtype: DType, shape: &[usize]) -> Case {
    let name = format!(
        "cross_entropy/agreement/{}/{name}/{}/{}",
        setting.name,
        shape_name(shape),
        dtype.as_str()
    );
    let shape = shape.to_vec();
    Case::new(name, "cross_entropy", dtype, move |device| {
        let loss = setting.loss(classes(&shape), reduction, device)?;
        let x = values(&shape, dtype, 0, device)?;
        let y = targets(
            &target_shape(&shape),
            classes(&shape),
            setting.ignored,
            device,
        )?;
        let fused = backward(&x, |x| loss.forward(x, &y))?;
        // The oracle sees the same numbers in f64.
        let oracle = backward(&x.to_dtype(DType::F64)?, |x| loss.composed(x, &y))?;
        let mut worst = Worst::new(dtype);
        worst.compare("fused and composed", &fused, &oracle);
        let (value, gradient) = loss.value_and_grad(&x, &y)?;
        worst.compare(
            "value_and_grad and backward",
            &both(&value, &gradient)?,
            &fused,
        );
        let (value, gradient) = loss.value_and_grad_in_place(x.copy()?.detach(), &y)?;
        worst.compare(
            "value_and_grad_in_place and backward",
            &both(&value, &gradient)?,
            &fused,
        );
        if setting.ignored.is_none() {
            probabilities(&loss, &x, &shape, device, &mut worst)?;
        }
        Ok(worst.outcome())
    })
}

fn probabilities(
    loss: &CrossEntropy,
    x: &Tensor,
    shape: &[usize],
    device: &Device,
    worst: &mut Worst,
) -> Result<()> {
    let t = positive(shape, x.dtype(), 1, device)?;
    let wide = t.to_dtype(DType::F64)?;
    let fused = backward(x, |x| loss.forward_probabilities(x, &t))?;
    let oracle = backward(&x.to_dtype(DType::F64)?, |x| {
        loss.composed_probabilities(x, &wide)
    })?;
    worst.compare("fused and composed, with probabilities", &fused, &oracle);
    let (value, gradient) = loss.value_and_grad_probabilities(x, &t)?;
    worst.compare(
        "value_and_grad and backward, with probabilities",
        &both(&value, &gradient)?,
        &fused,
    );
    Ok(())
}

fn backward(x: &Tensor, loss: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Both> {
    let x = Var::from_tensor(x)?;
    let value = loss(x.as_tensor())?;
    let gradient = value
        .sum_all()?
        .backward()?
        .remove(&x)
        .map_or_else(|| x.zeros_like(), Ok)?;
    both(&value, &gradient)
}

fn both(value: &Tensor, gradient: &Tensor) -> Result<Both> {
    let flat = |t: &Tensor| t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    Ok(Both {
        value: flat(value)?,
        gradient: flat(gradient)?,
    })
}

/// The largest disagreement so far, and the first that is too large.
struct Worst {
    max_error: f64,
    reason: Option<String>,
    /// Of the loss, which half precision returns in f32, and of the gradient, in the input's dtype.
    tolerances: (f64, f64),
}

impl Worst {
    fn new(dtype: DType) -> Self {
        let tolerances = match dtype {
            DType::F64 => (1e-12, 1e-12),
            DType::F32 => (1e-5, 1e-5),
            DType::F16 => (1e-5, 1e-3),
            _ => (1e-5, 8e-3),
        };
        Self {
            max_error: 0.0,
            reason: None,
            tolerances,
        }
    }

    fn compare(&mut self, what: &str, a: &Both, b: &Both) {
        self.slices(what, "loss", &a.value, &b.value, self.tolerances.0);
        self.slices(
            what,
            "gradient",
            &a.gradient,
            &b.gradient,
            self.tolerances.1,
        );
    }

    fn slices(&mut self, what: &str, of: &str, a: &[f64], b: &[f64], tolerance: f64) {
        if a.len() != b.len() {
            self.reason.get_or_insert(format!(
                "{what}: {} and {} elements in the {of}",
                a.len(),
                b.len()
            ));
            return;
        }
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            let error = (a - b).abs();
            self.max_error = if error > self.max_error || error.is_nan() {
                error
            } else {
                self.max_error
            };
            let close = error <= tolerance * (1.0 + b.abs());
            if !close && self.reason.is_none() {
                self.reason = Some(format!(
                    "{what} disagree at element {i} of the {of}: {a:e} and {b:e}"
                ));
            }
        }
    }

    fn outcome(self) -> Outcome {
        let max_error = self.max_error;
        self.reason
            .map_or(Outcome::Passed { max_error }, |reason| Outcome::Failed {
                max_error,
                reason,
            })
    }
}
