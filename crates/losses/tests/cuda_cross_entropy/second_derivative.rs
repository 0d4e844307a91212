//! Second derivatives on CUDA agree with the CPU's, whose own are checked by differences.

use std::process::Command;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_losses::{CrossEntropy, Reduction};

use crate::support::{compare, cuda, indices, numbers};

/// What makes Candle keep the graph of gradients, read at a thread's first backward.
const KEEP: &str = "CANDLE_GRAD_DO_NOT_DETACH";

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
    // The variable belongs to a process of its own, so that no other test's gradients keep their graphs.
    if std::env::var_os(KEEP).is_none() {
        let name = "second_derivative::second_derivatives_agree_with_the_cpu";
        let output = Command::new(std::env::current_exe()?)
            .args(["--exact", name])
            .env(KEEP, "1")
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(said.contains("1 passed"), "{said}");
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
