//! Infinities, NaN, nothing at all, and a loss without kernels.

use candle_core::{DType, Result, Tensor, Var};
use candle_losses::{EmptyPolicy, Float, Pointwise, PointwiseLoss, Reduction};

use crate::support::*;

#[test]
fn special_numbers_give_what_the_cpu_gives() -> Result<()> {
    let device = cuda();
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let special = [0.0, -0.0, 1.0, -1.0, 0.7, 200.0, -200.0, inf, -inf, nan];
    let x: Vec<f64> = special.iter().flat_map(|&x| [x; 10]).collect();
    let t: Vec<f64> = special.iter().cycle().take(100).copied().collect();
    for case in catalogue() {
        for dtype in DTYPES {
            let (x, t) = (
                tensor(x.clone(), &[100], dtype),
                tensor(t.clone(), &[100], dtype),
            );
            let setup = Setup {
                reduction: Reduction::None,
                ..Setup::default()
            };
            let want = run(&case, &setup, &x, &t, |t| Ok(t.clone()))?;
            let got = run(
                &case,
                &setup,
                &x.to_device(&device)?,
                &t.to_device(&device)?,
                |t| Ok(t.clone()),
            )?;
            for (part, (got, want)) in got.iter().zip(&want).enumerate() {
                let what = format!(
                    "{} {dtype:?} part {part} (x {:?}, t {:?})",
                    case.name,
                    flat(&x),
                    flat(&t)
                );
                assert_close(&what, got, want, rounding(want.dtype()));
            }
        }
    }
    Ok(())
}

#[test]
fn every_loss_of_nothing_is_the_policys_zero_or_empty() -> Result<()> {
    let device = cuda();
    for case in catalogue() {
        for dtype in DTYPES {
            let x = Tensor::ones((2, 3), dtype, &device)?.narrow(0, 0, 0)?;
            let of = |reduction, on_empty| {
                let setup = Setup {
                    reduction,
                    on_empty,
                    ..Setup::default()
                };
                (case.run)(&setup, &x, &x)
            };
            let what = format!("{} {dtype:?}", case.name);
            let mean = flat(&of(Reduction::Mean, EmptyPolicy::Nan)?);
            assert!(mean.len() == 1 && mean[0].is_nan(), "{what}: {mean:?}");
            let mean = of(Reduction::Mean, EmptyPolicy::Zero)?;
            assert_eq!(flat(&mean), [0.0], "{what}");
            let sum = of(Reduction::Sum, EmptyPolicy::Nan)?;
            assert_eq!(flat(&sum), [0.0], "{what}");
            let none = of(Reduction::None, EmptyPolicy::Nan)?;
            assert_eq!(
                (none.dims(), none.dtype()),
                (&[0, 3][..], mean.dtype()),
                "{what}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_gradient_to_nothing_is_an_error_that_names_it() -> Result<()> {
    let variable = Var::ones((2, 3), DType::F32, &cuda())?;
    let (tracked, plain) = (
        variable.narrow(0, 0, 0)?,
        variable.detach().narrow(0, 0, 0)?,
    );
    for case in catalogue() {
        for reduction in [Reduction::Mean, Reduction::Sum] {
            let setup = Setup {
                reduction,
                ..Setup::default()
            };
            for (x, t, argument) in [(&tracked, &plain, "input"), (&plain, &tracked, "target")] {
                let loss = (case.run)(&setup, x, t)?;
                let message = loss.backward().expect_err("taken").to_string();
                for part in [&*format!(": {argument} must"), "[0, 3]", "the empty batch"] {
                    assert!(
                        message.contains(part),
                        "{}: {message:?} lacks {part:?}",
                        case.name
                    );
                }
            }
        }
    }
    Ok(())
}

struct Bare;
impl Pointwise for Bare {
    fn value<F: Float>(&self, x: F, t: F) -> F {
        x - t
    }
}

#[test]
fn a_loss_without_kernels_says_what_is_missing() -> Result<()> {
    let x = Tensor::ones(3, DType::F32, &cuda())?;
    let error = PointwiseLoss::new(Bare)
        .forward(&x, &x)
        .unwrap_err()
        .to_string();
    for part in ["names no CUDA kernels", "to_device", "cuda_kernels"] {
        assert!(error.contains(part), "{error}");
    }
    Ok(())
}
