//! A loss of your own: a scalar formula becomes a fused op with autograd, weight and reductions.
//!
//! `cargo run --release -p candle-losses --example custom_loss`
#![allow(clippy::print_stdout)]

use candle_core::{Device, Result, Tensor, Var};
use candle_losses::{Float, Pointwise, PointwiseLoss, Reduction};

/// Pinball loss: its minimum is the quantile `q` of the targets, not their mean.
struct Pinball {
    q: f64,
}

impl Pointwise for Pinball {
    fn value<F: Float>(&self, x: F, t: F) -> F {
        let d = t - x;
        (F::of(self.q) * d).max(F::of(self.q - 1.0) * d)
    }
    fn derivative<F: Float>(&self, x: F, t: F) -> F {
        if x < t {
            F::of(-self.q)
        } else {
            F::of(1.0 - self.q)
        }
    }
}

fn main() -> Result<()> {
    let device = Device::Cpu;
    // 99 targets, 1 to 99; gradient descent on one number finds their quantiles.
    let targets = Tensor::arange(1f32, 100f32, &device)?;
    for q in [0.1, 0.5, 0.9] {
        let loss = PointwiseLoss::new(Pinball { q });
        let x = Var::zeros((1,), candle_core::DType::F32, &device)?;
        for _ in 0..2000 {
            let value = loss.forward(&x.broadcast_as(targets.shape())?, &targets)?;
            let gradients = value.backward()?;
            let step = (gradients.get(&x).expect("x is a variable") * 0.5)?;
            x.set(&x.sub(&step)?)?;
        }
        let found = x.to_vec1::<f32>()?[0];
        println!("the {q} quantile of 1..=99 is about {found:.1}");
        assert!((f64::from(found) - 100.0 * q).abs() < 1.5);
    }

    // Weights, other reductions and narrow dtypes come with it.
    let input = Tensor::new(&[1.0f32, 2.0, 3.0], &device)?.to_dtype(candle_core::DType::BF16)?;
    let loss = PointwiseLoss::new(Pinball { q: 0.5 })
        .weight(Tensor::new(&[1.0f32, 0.0, 2.0], &device)?.to_dtype(candle_core::DType::BF16)?)
        .reduction(Reduction::None)
        .forward(&input, &input.zeros_like()?)?;
    println!("one loss each: {loss}");
    Ok(())
}
