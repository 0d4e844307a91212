//! Takes the place of candle-nn's cross entropy: the same call, one fused op.
//!
//! `cargo run --release -p candle-losses --example drop_in`
#![allow(clippy::print_stdout)]

use candle_core::{Device, Result, Tensor, Var};
use candle_losses::{CrossEntropy, cross_entropy};

fn main() -> Result<()> {
    let logits = Var::new(&[[2.0f32, 0.5, -1.0], [0.1, 0.2, 3.0]], &Device::Cpu)?;
    let targets = Tensor::new(&[0u32, 1], &Device::Cpu)?;

    // Was: candle_nn::loss::cross_entropy(&logits, &targets)?
    let loss = cross_entropy(&logits, &targets)?;
    let gradients = loss.backward()?;
    println!("loss {}", loss.to_scalar::<f32>()?);
    if let Some(gradient) = gradients.get(&logits) {
        println!("gradient\n{gradient}");
    }

    // Loss, accuracy and the rest from the same pass.
    let out = CrossEntropy::new().forward_with_outputs(&logits, &targets)?;
    println!(
        "{} of {} right, log-sum-exp {}",
        out.correct,
        targets.elem_count(),
        out.lse
    );
    Ok(())
}
