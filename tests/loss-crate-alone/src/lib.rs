//! A crate that depends on candle-losses alone: what another project gets from one line in its `Cargo.toml`.

use candle_losses::candle_core::{Result, Tensor, Var};

/// One step of gradient descent on a softmax regression, returning the loss before the step.
///
/// `images` has shape (N, D), `targets` shape (N), and `weight` shape (D, C).
pub fn descend(weight: &Var, images: &Tensor, targets: &Tensor, learning_rate: f64) -> Result<f32> {
    let loss = candle_losses::cross_entropy(&images.matmul(weight)?, targets)?;
    if let Some(gradient) = loss.backward()?.get(weight) {
        weight.set(&(weight.as_tensor() - (gradient * learning_rate)?)?)?;
    }
    loss.to_scalar::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_losses::candle_core::Device;

    #[test]
    fn a_softmax_regression_learns_with_the_loss_crate_alone() -> Result<()> {
        let images = Tensor::new(&[[1f32, 0., 1.], [0., 1., 1.], [1., 1., 0.]], &Device::Cpu)?;
        let targets = Tensor::new(&[0u32, 1, 2], &Device::Cpu)?;
        let weight = Var::zeros((3, 3), candle_losses::candle_core::DType::F32, &Device::Cpu)?;
        let first = descend(&weight, &images, &targets, 1.0)?;
        assert!(
            (first - 3f32.ln()).abs() < 1e-6,
            "a uniform guess costs ln 3, not {first}"
        );
        let mut last = first;
        for _ in 0..100 {
            last = descend(&weight, &images, &targets, 1.0)?;
        }
        assert!(last < 0.1, "the loss is still {last}");
        Ok(())
    }
}
