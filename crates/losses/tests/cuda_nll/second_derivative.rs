//! Second derivatives on CUDA agree with the CPU's.

use std::process::Command;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_losses::Nll;

use crate::support::*;

/// What makes Candle keep the graph of gradients, read at a thread's first backward.
const KEEP: &str = "CANDLE_GRAD_DO_NOT_DETACH";

/// The gradient of the squares of the gradient of the squared losses.
fn second(loss: &Nll, x: &Tensor, t: &Tensor) -> Result<Tensor> {
    let x = Var::from_tensor(x)?;
    let first = loss.forward(&x, t)?.sqr()?.flatten_all()?.sum(0)?;
    let gradient = first.backward()?.get(&x).expect("x is a variable").clone();
    let again = gradient.sqr()?.flatten_all()?.sum(0)?.backward()?;
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
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{errors}");
        assert!(said.contains("1 passed"), "{said}");
        return Ok(());
    }
    let device = cuda()?;
    for dims in [vec![3], vec![5, 3], vec![2, 3, 4]] {
        for dtype in [DType::F32, DType::F64] {
            let x = numbers(1, &dims, dtype)?;
            let t = classes(2, &dims, DType::I64)?;
            let weight = numbers(3, &[3], dtype)?;
            for reduction in REDUCTIONS {
                let loss = |device: &Device| -> Result<Nll> {
                    let loss = Nll::new().reduction(reduction).ignore_index(1);
                    Ok(loss.weight(weight.to_device(device)?))
                };
                let wanted = second(&loss(&Device::Cpu)?, &x, &t)?;
                let found = second(
                    &loss(&device)?,
                    &x.to_device(&device)?,
                    &t.to_device(&device)?,
                )?;
                assert_close(
                    &format!("{dims:?} {dtype:?} {reduction:?}"),
                    &found,
                    &wanted,
                )?;
            }
        }
    }
    Ok(())
}
