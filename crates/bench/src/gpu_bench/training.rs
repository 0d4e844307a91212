//! LeNet-5: an epoch of 469 steps of 128 images that lie on the device, as `python/gpu.py` takes it.

use crate::output::{self, first_line};
use crate::timing::Effort;
use bench::lenet5::{Ours, SHAPE, STEPS, Stock, batches};
use candle_core::{Device, Result, Tensor};
use serde_json::json;
use std::time::Instant;

const GROUP: &str = "LeNet-5, one epoch of 469 steps";

type Batch = (Tensor, Tensor);

/// Epochs that are timed; the median counts.
const EPOCHS: usize = 5;

pub(crate) fn run(device: &Device, effort: &Effort) {
    let (steps, epochs) = if effort.smoke {
        (2, 1)
    } else {
        (STEPS, EPOCHS)
    };
    let batches = match batches(steps, device) {
        Ok(batches) => batches,
        Err(error) => {
            return output::missing(GROUP, "all", SHAPE, "f32", &first_line(&error));
        }
    };
    let ours = Ours::new(device)
        .and_then(|mut model| epoch(device, &batches, epochs, |batch| model.step(batch)));
    report("ours", steps, epochs, ours);
    let stock = Stock::new(device)
        .and_then(|mut model| epoch(device, &batches, epochs, |batch| model.step(batch)));
    report("candle", steps, epochs, stock);
}

/// The median of some epochs, after a few steps to load the kernels. Losses are read after the last step of an epoch.
fn epoch(
    device: &Device,
    batches: &[Batch],
    epochs: usize,
    mut step: impl FnMut(&Batch) -> Result<Tensor>,
) -> Result<f64> {
    for batch in batches.iter().take(20) {
        step(batch)?;
    }
    device.synchronize()?;
    let mut seconds = Vec::new();
    for _ in 0..epochs {
        let start = Instant::now();
        for batch in batches {
            step(batch)?;
        }
        device.synchronize()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

fn report(function: &str, steps: usize, epochs: usize, seconds: Result<f64>) {
    match seconds {
        Ok(seconds) => output::line(&json!({
            "group": GROUP,
            "function": function,
            "shape": SHAPE,
            "dtype": "f32",
            "median_seconds": seconds,
            "steps": steps,
            "samples": epochs,
            "calls_per_sample": steps,
        })),
        Err(error) => output::missing(GROUP, function, SHAPE, "f32", &first_line(&error)),
    }
}
