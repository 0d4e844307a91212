//! Replays a recorded PyTorch run and compares: the proof that model, loss, gradients and Adam together are PyTorch's.
//!
//! In double precision the replay must agree almost to the last digit. In single precision forty steps of Adam amplify
//! rounding (its first steps are close to sign functions), so losses and weights are held to what two memory layouts of PyTorch
//! itself differ by, with some room.

mod golden;
#[cfg(test)]
mod tests;

use candle_core::{DType, Device, Tensor};
use fashion_mnist::Split;
use lenet5::LeNet5;
use serde::Serialize;

use crate::config::LossKind;
use crate::errors::{Result, TrainerError};
use crate::optimizer::{Adam, AdamOptions};

pub use golden::Golden;

/// Largest difference of step-0 logits and gradients in f64.
const STEP0_TOLERANCE: f64 = 1e-10;
/// Largest difference of a loss in f64.
const LOSS_TOLERANCE: f64 = 1e-9;
/// Largest difference of a final weight in f64.
const WEIGHT_TOLERANCE: f64 = 1e-8;
/// Largest relative difference of a loss in f32.
const LOSS_RELATIVE_TOLERANCE_F32: f64 = 2e-2;
/// Mean difference of the final weights in f32.
const MEAN_WEIGHT_TOLERANCE_F32: f64 = 1e-3;

/// The comparison, in the form that `verify-training --json` prints. A number that is not finite prints as null.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether every difference is within its tolerance.
    pub passed: bool,
    /// Steps replayed.
    pub steps: usize,
    /// In double precision.
    pub f64: DoubleErrors,
    /// In single precision.
    pub f32: SingleErrors,
}

/// Largest absolute differences in double precision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DoubleErrors {
    /// Of the logits of the first batch.
    pub max_logit_error: f64,
    /// Of the gradients of every parameter at the first step.
    pub max_grad_error: f64,
    /// Of the loss of every step.
    pub max_loss_error: f64,
    /// Of the weights after the last step.
    pub max_weight_error: f64,
}

/// Differences in single precision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SingleErrors {
    /// Of the loss of every step, relative to the recorded one.
    pub max_loss_relative_error: f64,
    /// Of the weights after the last step, mean over all of them.
    pub mean_weight_error: f64,
}

impl Report {
    /// One line a comparison: what, measured, allowed, verdict.
    pub fn lines(&self) -> Vec<String> {
        self.comparisons()
            .iter()
            .map(|(what, error, tolerance)| {
                let verdict = if error <= tolerance { "ok" } else { "FAILED" };
                format!("{what:<38} {error:>10.3e}  allowed {tolerance:.0e}  {verdict}")
            })
            .collect()
    }

    fn comparisons(&self) -> [(&'static str, f64, f64); 6] {
        let (d, s) = (&self.f64, &self.f32);
        [
            (
                "f64: step-0 logits, largest difference",
                d.max_logit_error,
                STEP0_TOLERANCE,
            ),
            (
                "f64: step-0 gradients, largest",
                d.max_grad_error,
                STEP0_TOLERANCE,
            ),
            ("f64: losses, largest", d.max_loss_error, LOSS_TOLERANCE),
            (
                "f64: final weights, largest",
                d.max_weight_error,
                WEIGHT_TOLERANCE,
            ),
            (
                "f32: losses, largest relative",
                s.max_loss_relative_error,
                LOSS_RELATIVE_TOLERANCE_F32,
            ),
            (
                "f32: final weights, mean",
                s.mean_weight_error,
                MEAN_WEIGHT_TOLERANCE_F32,
            ),
        ]
    }
}

/// Replays the recorded run on the training images in both precisions.
///
/// # Errors
/// [`TrainerError::Data`] when the record reaches beyond the training images or was taken on other pixels.
pub fn verify(golden: &Golden, train: &Split, device: &Device) -> Result<Report> {
    golden.check_images(train)?;
    let double = replay(golden, train, DType::F64, device)?;
    let single = replay(golden, train, DType::F32, device)?;

    let loss_errors = |losses: &[f64]| -> Vec<(f64, f64)> {
        let pairs = losses.iter().zip(&golden.losses);
        pairs.map(|(a, b)| ((a - b).abs(), b.abs())).collect()
    };
    let mut weight_sum = 0.0;
    let mut weight_count = 0;
    for (weights, expected) in single.weights.iter().zip(&golden.finals) {
        weight_sum += differences(weights, expected)?.iter().sum::<f64>();
        weight_count += expected.elem_count();
    }
    let mut report = Report {
        passed: false,
        steps: golden.steps,
        f64: DoubleErrors {
            max_logit_error: largest(differences(&double.logits, &golden.logits)?),
            max_grad_error: largest_of_all(&double.gradients, &golden.gradients)?,
            max_loss_error: largest(loss_errors(&double.losses).iter().map(|(error, _)| *error)),
            max_weight_error: largest_of_all(&double.weights, &golden.finals)?,
        },
        f32: SingleErrors {
            max_loss_relative_error: largest(
                loss_errors(&single.losses)
                    .iter()
                    .map(|(error, loss)| error / loss.max(f64::MIN_POSITIVE)),
            ),
            mean_weight_error: weight_sum / weight_count as f64,
        },
    };
    // `<=` is false for NaN, so a comparison that gave none fails.
    report.passed = report
        .comparisons()
        .iter()
        .all(|(_, error, tolerance)| error <= tolerance);
    Ok(report)
}

/// What a replay gave.
struct Replay {
    logits: Tensor,
    gradients: Vec<Tensor>,
    losses: Vec<f64>,
    weights: Vec<Tensor>,
}

fn replay(golden: &Golden, train: &Split, dtype: DType, device: &Device) -> Result<Replay> {
    let model = LeNet5::from_tensors(&golden.init, dtype, device)?;
    let options = AdamOptions {
        lr: golden.lr,
        ..AdamOptions::default()
    };
    let mut adam = Adam::new(options, model.parameters())?;
    let mut losses = Vec::with_capacity(golden.steps);
    let mut first = None;
    for step in 0..golden.steps {
        let (images, labels) = golden.batch(train, step, dtype, device)?;
        let logits = model.forward(&images)?;
        let loss = LossKind::Fused.mean(&logits, &labels)?;
        losses.push(loss.to_dtype(DType::F64)?.to_scalar::<f64>()?);
        let grads = loss.backward()?;
        if first.is_none() {
            let gradients = model
                .parameters()
                .iter()
                .map(|(name, var)| {
                    grads.get(var).cloned().ok_or_else(|| {
                        TrainerError::CheckFailed(format!("parameter {name} has no gradient"))
                    })
                })
                .collect::<Result<Vec<_>>>()?;
            first = Some((logits.detach(), gradients));
        }
        adam.step(model.parameters(), &grads)?;
    }
    let (logits, gradients) =
        first.ok_or_else(|| TrainerError::Data("the recorded run has no steps".into()))?;
    Ok(Replay {
        logits,
        gradients,
        losses,
        weights: model
            .parameters()
            .iter()
            .map(|(_, var)| var.as_detached_tensor())
            .collect(),
    })
}

/// Absolute differences, element by element, in double precision.
fn differences(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    let flat = |t: &Tensor| -> candle_core::Result<Vec<f64>> {
        t.to_device(&Device::Cpu)?
            .to_dtype(DType::F64)?
            .flatten_all()?
            .to_vec1::<f64>()
    };
    Ok(flat(a)?
        .iter()
        .zip(flat(b)?)
        .map(|(a, b)| (a - b).abs())
        .collect())
}

fn largest_of_all(a: &[Tensor], b: &[Tensor]) -> Result<f64> {
    let mut all = Vec::new();
    for (a, b) in a.iter().zip(b) {
        all.extend(differences(a, b)?);
    }
    Ok(largest(all))
}

/// The largest value; NaN where there is one, which `f64::max` would pass over.
fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(0.0, |worst, value| {
        if value.is_nan() || worst.is_nan() {
            f64::NAN
        } else {
            value.max(worst)
        }
    })
}
