//! Rows longer than a part of the pass over memory: the running maximum and the scaled sum are right wherever the maximum
//! lies.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_simd::{Isa, with_isa};

use super::oracle::{OracleTarget, Problem, close};
use crate::{CrossEntropy, EmptyPolicy, Reduction};

/// Logits that are exact in bf16, by where their maximum lies.
fn patterns(classes: usize) -> Vec<(&'static str, Vec<f64>)> {
    let small = |c: usize| ((c * 7 % 13) as f64) * 0.25;
    let row = |f: &dyn Fn(usize) -> f64| (0..classes).map(f).collect();
    vec![
        ("rising", row(&|c| (c / 1024) as f64 * 2.0 + small(c))),
        ("falling", row(&|c| -((c / 1024) as f64) * 2.0 + small(c))),
        (
            "spike at the end",
            row(&|c| if c + 1 == classes { 64.0 } else { small(c) }),
        ),
        (
            "leading -inf",
            row(&|c| {
                if c < classes * 2 / 3 {
                    f64::NEG_INFINITY
                } else {
                    small(c)
                }
            }),
        ),
        (
            "trailing -inf",
            row(&|c| {
                if c > classes / 3 {
                    f64::NEG_INFINITY
                } else {
                    small(c)
                }
            }),
        ),
        (
            "all but the last -inf",
            row(&|c| {
                if c + 1 < classes {
                    f64::NEG_INFINITY
                } else {
                    3.0
                }
            }),
        ),
    ]
}

fn close_all(got: &Tensor, expected: &[f64], tolerance: f64, what: &str) -> Result<()> {
    let got = got.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            close(got, expected, tolerance),
            "{what}, element {i}: {got:e} for {expected:e}"
        );
    }
    Ok(())
}

#[test]
fn a_row_of_many_parts_agrees_with_the_oracle_wherever_its_maximum_lies() -> Result<()> {
    for classes in [2047, 2048, 2049, 4103, 10_000] {
        for (name, logits) in patterns(classes) {
            let target = logits.iter().rposition(|x| x.is_finite()).unwrap();
            let problem = Problem {
                logits: logits.clone(),
                batch: 1,
                classes,
                inner: 1,
                target: OracleTarget::Indices {
                    values: vec![target as i64],
                    ignore: None,
                },
                weight: None,
                smoothing: 0.0,
                reduction: Reduction::Sum,
                num_items: None,
                z_loss: 0.0,
                softcap: None,
                scale: 1.0,
                on_empty: EmptyPolicy::Nan,
            };
            let answer = problem.solve(&[0.75]);
            let unit = problem.solve(&[1.0]);
            for (dtype, loss_tolerance, tolerance) in [
                (DType::F64, 1e-12, 1e-12),
                (DType::F32, 2e-6, 2e-6),
                (DType::F16, 2e-6, 1e-3),
                (DType::BF16, 2e-6, 8e-3),
            ] {
                for isa in Isa::available() {
                    let what = format!("{classes} {name} {dtype:?} {}", isa.name());
                    with_isa(isa, || {
                        let x = Tensor::from_vec(logits.clone(), (1, classes), &Device::Cpu)?
                            .to_dtype(dtype)?;
                        let t = Tensor::new(&[target as u32], &Device::Cpu)?;
                        let var = Var::from_tensor(&x)?;
                        let o = CrossEntropy::new().reduction(Reduction::Sum);
                        let loss = o.forward(&var, &t)?;
                        close_all(&loss, &answer.loss, loss_tolerance, &what)?;
                        let gradients = (loss * 0.75)?.backward()?;
                        close_all(
                            gradients.get(&var).unwrap(),
                            &answer.gradient,
                            tolerance,
                            &what,
                        )?;
                        let (loss, gradient) = o.value_and_grad(&x, &t)?;
                        close_all(&loss, &unit.loss, loss_tolerance, &what)?;
                        close_all(&gradient, &unit.gradient, tolerance, &what)
                    })?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn nan_in_any_part_makes_the_row_nan() -> Result<()> {
    let classes = 7000;
    for others in [0.0, f32::NEG_INFINITY] {
        for at in [0, 2047, 2048, 5000, classes - 1] {
            let mut x = vec![others; classes];
            x[at] = f32::NAN;
            // Finite somewhere, in a part of its own.
            x[3000] = 1.0;
            let x = Tensor::from_vec(x, (1, classes), &Device::Cpu)?;
            for isa in Isa::available() {
                let (loss, gradient) = with_isa(isa, || {
                    CrossEntropy::new().value_and_grad(&x, &Tensor::new(&[3000u32], &Device::Cpu)?)
                })?;
                assert!(loss.to_scalar::<f32>()?.is_nan(), "{} at {at}", isa.name());
                assert!(
                    gradient
                        .flatten_all()?
                        .to_vec1::<f32>()?
                        .iter()
                        .all(|g| g.is_nan())
                );
            }
        }
    }
    Ok(())
}
