//! Label smoothing and class weights, and what they do to a confident model's loss.
//!
//! `cargo run --release -p candle-losses --example label_smoothing`
#![allow(clippy::print_stdout)]

use candle_core::{Device, Result, Tensor};
use candle_losses::CrossEntropy;

fn main() -> Result<()> {
    let logits = Tensor::new(
        &[[9.0f32, -3.0, -3.0], [-3.0, 9.0, -3.0], [4.0, 0.0, 0.0]],
        &Device::Cpu,
    )?;
    let targets = Tensor::new(&[0u32, 1, 2], &Device::Cpu)?;
    for smoothing in [0.0, 0.1, 0.3] {
        let options = CrossEntropy::new().label_smoothing(smoothing);
        let loss = options.forward(&logits, &targets)?.to_scalar::<f32>()?;
        println!("smoothing {smoothing}: loss {loss:.4}");
    }
    // The third class is rare: its rows count four times, in the sum and in what the mean divides by.
    let weight = Tensor::new(&[1.0f32, 1.0, 4.0], &Device::Cpu)?;
    let loss = CrossEntropy::new()
        .label_smoothing(0.1)
        .weight(weight)
        .forward(&logits, &targets)?;
    println!(
        "smoothing 0.1, third class weighted 4: loss {:.4}",
        loss.to_scalar::<f32>()?
    );
    Ok(())
}
