//! Infinities, NaN, nothing at all, and a loss without kernels.

use candle_core::{DType, Result, Tensor};
use candle_losses::{EmptyPolicy, Float, Mse, Pointwise, PointwiseLoss, Reduction};

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
fn the_mean_of_nothing_is_the_policys() -> Result<()> {
    let x = Tensor::ones((2, 3), DType::F32, &cuda())?.narrow(0, 0, 0)?;
    let mean = |policy| {
        Mse::new()
            .on_empty(policy)
            .forward(&x, &x)?
            .to_scalar::<f32>()
    };
    assert!(mean(EmptyPolicy::Nan)?.is_nan());
    assert_eq!(mean(EmptyPolicy::Zero)?, 0.0);
    let sum = Mse::new().reduction(Reduction::Sum).forward(&x, &x)?;
    assert_eq!(sum.to_scalar::<f32>()?, 0.0);
    let none = Mse::new().reduction(Reduction::None).forward(&x, &x)?;
    assert_eq!(none.dims(), [0, 3]);
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
