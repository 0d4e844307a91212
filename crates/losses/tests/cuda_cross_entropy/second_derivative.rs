//! Second derivatives on CUDA agree with the CPU's, whose own are checked by differences.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_losses::{CrossEntropy, Reduction};

use crate::own_process::keeps_graphs;
use crate::support::{compare, cuda, indices, numbers};

/// The derivative of a weighted sum of the gradient's squares, with respect to the logits.
fn second(options: &CrossEntropy, x: &Tensor, t: &Tensor, device: &Device) -> Result<Tensor> {
    let x = Var::from_tensor(&x.to_device(device)?)?;
    let loss = if t.dtype().is_float() {
        options.forward_probabilities(&x, &t.to_device(device)?)?
    } else {
        options.forward(&x, &t.to_device(device)?)?
    };
    let gradient = loss
        .flatten_all()?
        .sum_all()?
        .backward()?
        .get(&x)
        .unwrap()
        .clone();
    let again = gradient.sqr()?.sum_all()?.backward()?;
    Ok(again.get(&x).expect("the gradient has a graph").clone())
}

#[test]
fn second_derivatives_agree_with_the_cpu() -> Result<()> {
    if !keeps_graphs("second_derivative::second_derivatives_agree_with_the_cpu")? {
        return Ok(());
    }
    let device = cuda()?;
    let base = CrossEntropy::new();
    let settings = [
        base.clone(),
        base.clone().z_loss(0.01).reduction(Reduction::None),
        base.clone()
            .label_smoothing(0.1)
            .softcap(5.0)
            .logit_scale(0.7),
    ];
    for dims in [vec![3, 4], vec![2, 3, 2]] {
        for options in &settings {
            let x = (numbers(1, &dims)? * 0.25)?;
            for dtype in [DType::U8, DType::U32, DType::I64] {
                let t = indices(2, &dims, None)?.to_dtype(dtype)?;
                let wanted = second(options, &x, &t, &Device::Cpu)?;
                let found = second(options, &x, &t, &device)?;
                compare(&format!("{dims:?} {options:?}"), &wanted, &found, 1e-11)?;
            }
            let p = ((numbers(3, &dims)? + 8.0)? * (1.0 / 32.0))?;
            let wanted = second(options, &x, &p, &Device::Cpu)?;
            let found = second(options, &x, &p, &device)?;
            compare("probabilities", &wanted, &found, 1e-11)?;
        }
    }
    Ok(())
}
