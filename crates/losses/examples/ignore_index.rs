//! A padded batch of sequences in two micro-batches: padding is ignored, and the accumulated gradient is that of one batch.
//!
//! `cargo run --release -p candle-losses --example ignore_index`
#![allow(clippy::print_stdout)]

use candle_core::{Device, Result, Tensor};
use candle_losses::CrossEntropy;

const PADDING: i64 = -100;

fn main() -> Result<()> {
    // (batch, classes, positions); the second sequence is short.
    let logits = Tensor::randn(0f32, 1f32, (2, 5, 4), &Device::Cpu)?;
    let targets = Tensor::new(&[[1i64, 4, 0, 2], [3, 0, PADDING, PADDING]], &Device::Cpu)?;
    let options = CrossEntropy::new().ignore_index(PADDING);
    let whole = options.forward(&logits, &targets)?.to_scalar::<f32>()?;

    // A mean of means would weigh the short sequence's tokens twice: divide both sums by the number of all tokens.
    let tokens = 6.0;
    let options = options.num_items(tokens);
    let mut accumulated = 0.0;
    for sequence in 0..2 {
        let loss = options.forward(
            &logits.narrow(0, sequence, 1)?,
            &targets.narrow(0, sequence, 1)?,
        )?;
        accumulated += loss.to_scalar::<f32>()?;
    }
    println!("one batch {whole:.6}, two micro-batches {accumulated:.6}");
    assert!((whole - accumulated).abs() < 1e-5);
    Ok(())
}
