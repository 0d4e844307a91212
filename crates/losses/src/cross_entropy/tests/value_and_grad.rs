//! The forms outside the graph.

use candle_core::{Device, Result, Tensor};

use crate::{CrossEntropy, Reduction};

#[test]
fn in_place_the_gradient_takes_the_memory_of_the_logits() -> Result<()> {
    for classes in [3, 50] {
        let x = Tensor::rand(-1f32, 1f32, (4, classes), &Device::Cpu)?;
        let copy = x.copy()?;
        let t = Tensor::new(&[0u32, 1, 2, 0], &Device::Cpu)?;
        let (loss, gradient) = CrossEntropy::new().value_and_grad_in_place(x.clone(), &t)?;
        let (expected_loss, expected) = CrossEntropy::new().value_and_grad(&copy, &t)?;
        assert_eq!(loss.to_scalar::<f32>()?, expected_loss.to_scalar::<f32>()?);
        assert_eq!(gradient.to_vec2::<f32>()?, expected.to_vec2::<f32>()?);
        assert_eq!(
            x.to_vec2::<f32>()?,
            expected.to_vec2::<f32>()?,
            "the clone sees the gradient"
        );
    }
    Ok(())
}

#[test]
fn in_place_touches_nothing_outside_a_window() -> Result<()> {
    let all = Tensor::ones((4, 60), candle_core::DType::F32, &Device::Cpu)?;
    let window = all.narrow(0, 1, 2)?.narrow(1, 3, 50)?;
    let t = Tensor::new(&[0u32, 1], &Device::Cpu)?;
    CrossEntropy::new().value_and_grad_in_place(window, &t)?;
    for (i, row) in all.to_vec2::<f32>()?.iter().enumerate() {
        for (j, &x) in row.iter().enumerate() {
            let inside = (1..3).contains(&i) && (3..53).contains(&j);
            assert_eq!(x == 1.0, !inside, "({i}, {j})");
        }
    }
    Ok(())
}

#[test]
fn without_reduction_the_gradient_is_that_of_the_sum() -> Result<()> {
    let x = Tensor::rand(-1f32, 1f32, (4, 5), &Device::Cpu)?;
    let t = Tensor::new(&[0u32, 1, 2, 0], &Device::Cpu)?;
    let (losses, a) = CrossEntropy::new()
        .reduction(Reduction::None)
        .value_and_grad(&x, &t)?;
    let (sum, b) = CrossEntropy::new()
        .reduction(Reduction::Sum)
        .value_and_grad(&x, &t)?;
    assert_eq!(losses.dims(), [4]);
    assert!((losses.sum_all()?.to_scalar::<f32>()? - sum.to_scalar::<f32>()?).abs() < 1e-5);
    assert_eq!(a.to_vec2::<f32>()?, b.to_vec2::<f32>()?);
    Ok(())
}
