//! Second derivatives on CUDA agree with the CPU's, whose own are checked by differences.

use candle_core::{DType, Result, Tensor, Var};

use crate::agreement::awkward;
use crate::own_process::keeps_graphs;
use crate::support::*;

/// A sum of all numbers, each times one of its own.
fn mixed(t: &Tensor, seed: u64) -> Result<Tensor> {
    let factors = tensor(numbers(t.elem_count(), seed), t.dims(), t.dtype());
    let product = (t * factors.to_device(t.device())?)?;
    // Candle's sum of a tensor without axes fails on CUDA: it uploads an empty list of them.
    product.flatten_all()?.sum(0)
}

/// The derivatives of a mixture of the gradients of input and target, by input, target and upstream gradient.
fn second(
    case: &Case,
    setup: &Setup,
    x: &Tensor,
    t: &Tensor,
    view: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<[Tensor; 3]> {
    let (x, t) = (Var::from_tensor(x)?, Var::from_tensor(t)?);
    let loss = (case.run)(setup, &view(&x)?, &view(&t)?)?;
    let upstream = tensor(numbers(loss.elem_count(), 99), loss.dims(), loss.dtype());
    let upstream = Var::from_tensor(&upstream.to_device(loss.device())?)?;
    let first = (loss * upstream.as_tensor())?.flatten_all()?.sum(0)?;
    let first = first.backward()?;
    let gradient = |v: &Var| first.get(v).expect("all are variables").clone();
    let mixture = (mixed(&gradient(&x), 97)? + mixed(&gradient(&t), 98)?)?;
    let again = mixture.backward()?;
    let of = |v: &Var| again.get(v).expect("the gradients have a graph").clone();
    Ok([of(&x), of(&t), of(&upstream)])
}

/// Products of some numbers of the type, and sums of two of them.
fn tolerance(dtype: DType) -> f64 {
    4.0 * rounding(dtype)
}

#[test]
fn second_derivatives_agree_with_the_cpu() -> Result<()> {
    if !keeps_graphs("second_derivative::second_derivatives_agree_with_the_cpu")? {
        return Ok(());
    }
    let device = cuda();
    let shape = [3usize, 5, 2];
    let len = shape.iter().product();
    for case in catalogue() {
        let x: Vec<f64> = numbers(len, 11).into_iter().map(case.to_input).collect();
        let t: Vec<f64> = numbers(len, 12).into_iter().map(case.to_target).collect();
        for dtype in DTYPES {
            let x = tensor(x.clone(), &shape, dtype);
            let t = tensor(t.clone(), &shape, dtype);
            let weight = tensor(numbers(5, 13), &[5, 1], dtype).abs()?;
            for (reduction, weight) in REDUCTIONS
                .into_iter()
                .flat_map(|reduction| [(reduction, None), (reduction, Some(weight.clone()))])
            {
                let setup = Setup {
                    weight,
                    reduction,
                    ..Setup::default()
                };
                let wanted = second(&case, &setup, &x, &t, |t| Ok(t.clone()))?;
                let (there_x, there_t) = (x.to_device(&device)?, t.to_device(&device)?);
                let views: [fn(&Tensor) -> Result<Tensor>; 2] = [|t| Ok(t.clone()), awkward];
                for (index, view) in views.into_iter().enumerate() {
                    let found = second(&case, &setup, &there_x, &there_t, view)?;
                    for (part, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                        let what = format!(
                            "{} {dtype:?} {reduction:?} weight {} view {index} part {part}",
                            case.name,
                            setup.weight.is_some()
                        );
                        assert_close(&what, found, wanted, tolerance(dtype));
                    }
                }
            }
        }
    }
    Ok(())
}
