//! LeNet-5 trained on CUDA against the CPU. It needs a CUDA device, or the emulated driver in `tests/emulated-driver`.

mod command;
mod runs;
#[path = "../shared/small_data.rs"]
mod small_data;

use candle_core::{DType, Device, Tensor};
use candle_losses::cross_entropy;
use lenet5::{Forward, LeNet5};
use trainer::errors::Result;
use trainer::optimizer::{Adam, AdamOptions};

/// Losses of ten steps on four made-up images, and all parameters after them.
fn ten_steps(device: &Device, forward: Forward, dtype: DType) -> Result<(Vec<f64>, Vec<f64>)> {
    let pixels: Vec<f64> = (0..4 * 32 * 32)
        .map(|i| (f64::from(i) * 0.618_033_988_749_894_9).fract() * 2.0 - 1.0)
        .collect();
    let images = Tensor::from_vec(pixels, (4, 1, 32, 32), &Device::Cpu)?
        .to_dtype(dtype)?
        .to_device(device)?;
    let targets = Tensor::from_vec((0..4u32).map(|i| i * 7 % 10).collect(), 4, device)?;
    let model = LeNet5::new(3, dtype, device)?.with_forward(forward);
    let mut adam = Adam::new(AdamOptions::default(), model.parameters())?;
    let mut losses = Vec::new();
    for _ in 0..10 {
        let loss = cross_entropy(&model.forward(&images)?, &targets)?;
        losses.push(loss.to_dtype(DType::F64)?.to_scalar::<f64>()?);
        let grads = loss.backward()?;
        adam.step(model.parameters(), &grads)?;
    }
    let mut weights = Vec::new();
    for (_, var) in model.parameters() {
        weights.extend(
            var.to_device(&Device::Cpu)?
                .to_dtype(DType::F64)?
                .flatten_all()?
                .to_vec1::<f64>()?,
        );
    }
    Ok((losses, weights))
}

#[test]
fn ten_steps_agree_with_the_cpu_in_double_and_single_precision() -> Result<()> {
    let cuda = Device::new_cuda(0)?;
    for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 2e-4)] {
        let (losses, weights) = ten_steps(&Device::Cpu, Forward::Fused, dtype)?;
        assert!(losses[9] < losses[0], "{losses:?}");
        for forward in [Forward::Fused, Forward::Composed] {
            let (losses2, weights2) = ten_steps(&cuda, forward, dtype)?;
            let worst = |a: &[f64], b: &[f64]| {
                a.iter()
                    .zip(b)
                    .fold(0.0, |w: f64, (a, b)| w.max((a - b).abs()))
            };
            let (by_loss, by_weight) = (worst(&losses, &losses2), worst(&weights, &weights2));
            assert!(
                by_loss <= tolerance && by_weight <= 10.0 * tolerance,
                "{forward:?} {dtype:?}: losses {by_loss}, weights {by_weight}"
            );
        }
    }
    Ok(())
}
