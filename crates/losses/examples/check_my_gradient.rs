//! Is the derivative that I wrote down the derivative of the value? Ask candle-gradcheck.
//!
//! `cargo run --release -p candle-losses --example check_my_gradient`
#![allow(clippy::print_stdout)]

use candle_core::{DType, Device, Result, Tensor};
use candle_gradcheck::GradCheck;
use candle_losses::{Float, Pointwise, PointwiseLoss, Reduction};

/// Charbonnier loss, sqrt(d^2 + eps^2), with its derivative by hand: right, or off by a lost factor.
struct Charbonnier {
    eps: f64,
    right: bool,
}

impl Pointwise for Charbonnier {
    fn value<F: Float>(&self, x: F, t: F) -> F {
        let d = x - t;
        (d * d + F::of(self.eps * self.eps)).sqrt()
    }
    fn derivative<F: Float>(&self, x: F, t: F) -> F {
        let slope = (x - t) / self.value(x, t);
        if self.right {
            slope
        } else {
            F::of(2.0) * slope
        }
    }
}

fn main() -> Result<()> {
    let input = Tensor::new(&[[0.3, -1.2, 0.7], [1.1, 0.4, -0.6]], &Device::Cpu)?;
    let target = Tensor::new(&[[0.1, -1.0, 0.9], [-1.1, 0.2, 0.6]], &Device::Cpu)?;
    for reduction in [Reduction::Mean, Reduction::None] {
        for right in [true, false] {
            for dtype in [DType::F64, DType::F32] {
                let function = Charbonnier { eps: 0.1, right };
                let loss = PointwiseLoss::new(function).reduction(reduction);
                let report = GradCheck::new().names(["input", "target"]).check(
                    |inputs| loss.forward(&inputs[0], &inputs[1]),
                    &[input.to_dtype(dtype)?, target.to_dtype(dtype)?],
                )?;
                println!("{reduction:?}, {dtype:?}, derivative by hand right: {right}\n{report}");
                assert_eq!(report.passed(), right);
            }
        }
    }
    Ok(())
}
