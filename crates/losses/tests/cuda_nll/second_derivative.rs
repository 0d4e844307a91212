//! Second derivatives on CUDA agree with the CPU's.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_losses::Nll;

use crate::own_process::keeps_graphs;
use crate::support::*;

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
    if !keeps_graphs("second_derivative::second_derivatives_agree_with_the_cpu")? {
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
