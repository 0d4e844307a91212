//! Extremes of value and shape: infinities, NaN, huge shifts, nothing to average, no rows.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_losses::{CrossEntropy, EmptyPolicy, Reduction};

use crate::empty::empty;
use crate::support::{close, cuda, values};

/// Class counts that take each kernel, and with the options of the general one.
fn settings() -> Vec<(usize, CrossEntropy)> {
    let general = || CrossEntropy::new().logit_scale(1.0 + 1e-7);
    [2, 5, 17, 130, 1100]
        .into_iter()
        .flat_map(|classes| [(classes, CrossEntropy::new()), (classes, general())])
        .collect()
}

/// The loss of each row and the gradient of their sum, row by row.
type LossAndGradient = (Vec<f64>, Vec<Vec<f64>>);

/// By forward and backward, and by `value_and_grad`.
fn both_forms(
    options: &CrossEntropy,
    logits: &Tensor,
    targets: &Tensor,
) -> Result<[LossAndGradient; 2]> {
    let device = cuda()?;
    let options = options.clone().reduction(Reduction::None);
    let (logits, targets) = (logits.to_device(&device)?, targets.to_device(&device)?);
    let classes = logits.dims()[1];
    let rows = |x: &Tensor| -> Result<Vec<Vec<f64>>> {
        Ok(values(x)?.chunks(classes).map(<[f64]>::to_vec).collect())
    };
    let x = Var::from_tensor(&logits)?;
    let loss = options.forward(&x, &targets)?;
    let gradients = loss.flatten_all()?.sum_all()?.backward()?;
    let (value, gradient) = options.value_and_grad(&logits, &targets)?;
    Ok([
        (values(&loss)?, rows(gradients.get(&x).unwrap())?),
        (values(&value)?, rows(&gradient)?),
    ])
}

#[test]
fn a_shift_of_all_logits_changes_nothing_even_by_1e8() -> Result<()> {
    // A scale other than 1 would round the shift.
    for (classes, options) in settings().into_iter().step_by(2) {
        let general = options.clone().label_smoothing(1e-30);
        for options in [options, general] {
            // Multiples of 8 are exact in f32 at 1e8.
            let x: Vec<f64> = (0..3 * classes)
                .map(|i| f64::from((i * 7 % 5) as u32) * 8.0)
                .collect();
            let logits = Tensor::from_vec(x, (3, classes), &Device::Cpu)?;
            let targets = Tensor::new(&[0u32, 1, (classes - 1) as u32], &Device::Cpu)?;
            let plain = both_forms(&options, &logits.to_dtype(DType::F32)?, &targets)?;
            for shift in [1e8, -1e8] {
                let shifted = (&logits + shift)?.to_dtype(DType::F32)?;
                let shifted = both_forms(&options, &shifted, &targets)?;
                for ((a, da), (b, db)) in plain.iter().zip(shifted) {
                    for (a, b) in a.iter().zip(&b) {
                        assert!(close(*b, *a, 1e-5), "{classes}: {a} {b}");
                    }
                    for (a, b) in da.iter().flatten().zip(db.iter().flatten()) {
                        assert!(close(*b, *a, 1e-6), "{classes}: gradient {a} {b}");
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_logit_of_minus_infinity_contributes_nothing() -> Result<()> {
    for (classes, options) in settings() {
        // A whole leading block, everything but the last class, one in the middle.
        for masked in [0..classes - 1, 0..classes / 2, classes / 2..classes / 2 + 1] {
            let mut x: Vec<f32> = (0..classes).map(|i| (i % 7) as f32 * 0.5).collect();
            masked.clone().for_each(|c| x[c] = f32::NEG_INFINITY);
            let target = (0..classes).rev().find(|c| !masked.contains(c)).unwrap();
            let logits = Tensor::from_vec(x.clone(), (1, classes), &Device::Cpu)?;
            let targets = Tensor::new(&[target as u32], &Device::Cpu)?;
            let kept = x.iter().filter(|x| x.is_finite());
            let lse = kept.map(|&x| f64::from(x).exp()).sum::<f64>().ln();
            for (loss, gradient) in both_forms(&options, &logits, &targets)? {
                assert!(
                    close(loss[0], lse - f64::from(x[target]), 1e-5),
                    "{classes} {masked:?}: {loss:?}"
                );
                assert!(
                    masked.clone().all(|c| gradient[0][c] == 0.0),
                    "{classes} {masked:?}"
                );
                assert!(gradient[0].iter().all(|g| g.is_finite()));
            }
        }
    }
    Ok(())
}

#[test]
fn a_target_logit_of_minus_infinity_gives_infinity() -> Result<()> {
    for (classes, options) in settings() {
        let mut x = vec![1f32; classes];
        x[1] = f32::NEG_INFINITY;
        let logits = Tensor::from_vec(x, (1, classes), &Device::Cpu)?;
        let targets = Tensor::new(&[1u32], &Device::Cpu)?;
        for (loss, gradient) in both_forms(&options, &logits, &targets)? {
            assert_eq!(loss, [f64::INFINITY], "{classes}");
            assert!(close(gradient[0][1], -1.0, 1e-6));
            assert!(close(gradient[0][0], 1.0 / (classes - 1) as f64, 1e-6));
        }
        let smoothed = options.label_smoothing(0.1);
        for (loss, gradient) in both_forms(&smoothed, &logits, &targets)? {
            assert_eq!(loss, [f64::INFINITY], "{classes}");
            assert!(gradient[0].iter().all(|g| g.is_finite()));
        }
    }
    Ok(())
}

#[test]
fn nan_and_infinity_stay_in_their_row() -> Result<()> {
    for (classes, options) in settings() {
        for (poison, at) in [
            (f32::NAN, 0),
            (f32::NAN, classes - 1),
            (f32::INFINITY, classes / 2),
        ] {
            let mut x = vec![0.5f32; 3 * classes];
            x[classes + at] = poison;
            let logits = Tensor::from_vec(x, (3, classes), &Device::Cpu)?;
            let targets = Tensor::new(&[0u32, 0, 1], &Device::Cpu)?;
            for (loss, gradient) in both_forms(&options, &logits, &targets)? {
                assert!(loss[1].is_nan(), "{classes} {poison}: {loss:?}");
                assert!(gradient[1].iter().all(|g| g.is_nan()), "{classes} {poison}");
                for row in [0, 2] {
                    assert!(close(loss[row], (classes as f64).ln(), 1e-6));
                    assert!(gradient[row].iter().all(|g| g.is_finite()));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_row_of_minus_infinity_is_nan() -> Result<()> {
    for (classes, options) in settings() {
        let logits = Tensor::full(f32::NEG_INFINITY, (1, classes), &Device::Cpu)?;
        for (loss, _) in both_forms(&options, &logits, &Tensor::new(&[0u32], &Device::Cpu)?)? {
            assert!(loss[0].is_nan(), "{classes}: {loss:?}");
        }
    }
    Ok(())
}

#[test]
fn an_ignored_row_is_exactly_zero_whatever_it_holds() -> Result<()> {
    for (classes, options) in settings() {
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
            let mut x = vec![0.5f32; 3 * classes];
            x[classes..2 * classes].fill(poison);
            let logits = Tensor::from_vec(x, (3, classes), &Device::Cpu)?;
            let targets = Tensor::new(&[0i64, -100, 1], &Device::Cpu)?;
            let options = options.clone().ignore_index(-100).z_loss(1e-3);
            for (loss, gradient) in both_forms(&options, &logits, &targets)? {
                assert_eq!(loss[1], 0.0, "{classes} {poison}");
                assert!(gradient[1].iter().all(|&g| g == 0.0), "{classes} {poison}");
                assert!(loss[0] > 0.0 && loss[2] > 0.0);
            }
            let device = cuda()?;
            let mean =
                options.forward(&logits.to_device(&device)?, &targets.to_device(&device)?)?;
            assert!(mean.to_scalar::<f32>()?.is_finite());
        }
    }
    Ok(())
}

#[test]
fn zero_coefficients_hide_minus_infinity_in_probabilities_and_smoothing() -> Result<()> {
    let device = cuda()?;
    let logits = Tensor::new(&[[0.0f64, f64::NEG_INFINITY, 1.0]], &device)?;
    let expected = (1.0 + 1f64.exp()).ln() - 1.0;
    let one_hot = Tensor::new(&[[0.0f64, 0.0, 1.0]], &device)?;
    let loss = CrossEntropy::new().forward_probabilities(&logits, &one_hot)?;
    assert!(close(loss.to_scalar()?, expected, 1e-12));
    let weight = Tensor::new(&[1.0f64, 0.0, 1.0], &device)?;
    let options = CrossEntropy::new().weight(weight).label_smoothing(0.5);
    let targets = Tensor::new(&[2u32], &device)?;
    let fused = options.forward(&logits, &targets)?.to_scalar::<f64>()?;
    let composed = options.composed(&logits, &targets)?.to_scalar::<f64>()?;
    assert!(
        fused.is_finite() && close(fused, composed, 1e-12),
        "{fused} {composed}"
    );
    Ok(())
}

#[test]
fn a_mean_over_nothing_follows_the_policy_with_gradient_zero() -> Result<()> {
    let device = cuda()?;
    let weight = Tensor::new(&[0.0f32, 1.0, 1.0], &device)?;
    let ignored = CrossEntropy::new().ignore_index(-1);
    let weightless = CrossEntropy::new().weight(weight);
    for (options, target) in [(ignored, -1i64), (weightless, 0)] {
        for policy in [EmptyPolicy::Nan, EmptyPolicy::Zero] {
            let options = options.clone().on_empty(policy);
            let logits = Var::new(&[[1f32, 2., 3.], [3., 2., 1.]], &device)?;
            let targets = Tensor::new(&[target, target], &device)?;
            let (value, grad) = options.value_and_grad(&logits, &targets)?;
            for loss in [options.forward(&logits, &targets)?, value] {
                let number = loss.to_scalar::<f32>()?;
                assert_eq!(number.is_nan(), policy == EmptyPolicy::Nan);
                assert!(number.is_nan() || number == 0.0);
                if loss.track_op() {
                    let gradients = loss.backward()?;
                    let gradient = gradients.get(&logits).unwrap().to_vec2::<f32>()?;
                    assert_eq!(gradient, [[0.0; 3]; 2]);
                }
            }
            assert_eq!(grad.to_vec2::<f32>()?, [[0.0; 3]; 2]);
            let sum = options.clone().reduction(Reduction::Sum);
            let sum = sum.forward(&logits, &targets)?.to_scalar::<f32>()?;
            assert_eq!(sum, 0.0, "a sum has no policy");
        }
    }
    Ok(())
}

#[test]
fn no_rows_give_an_empty_gradient() -> Result<()> {
    let device = cuda()?;
    for shape in [vec![0, 3], vec![0, 3, 2], vec![2, 3, 0]] {
        for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
            for policy in [EmptyPolicy::Nan, EmptyPolicy::Zero] {
                let options = CrossEntropy::new().reduction(reduction).on_empty(policy);
                let logits = empty(&shape, DType::F32, &device)?;
                let mut rows = shape.clone();
                rows.remove(1);
                let targets = empty(&rows, DType::U32, &device)?;
                let (value, gradient) = options.value_and_grad(&logits, &targets)?;
                assert_eq!(gradient.dims(), shape);
                for loss in [value, options.forward(&logits, &targets)?] {
                    if reduction == Reduction::None {
                        assert_eq!(loss.dims(), rows);
                        continue;
                    }
                    let number = loss.to_scalar::<f32>()?;
                    let nan = reduction == Reduction::Mean && policy == EmptyPolicy::Nan;
                    assert!(if nan { number.is_nan() } else { number == 0.0 });
                }
                let outputs = options.forward_with_outputs(&logits, &targets)?;
                assert_eq!((outputs.lse.dims(), outputs.correct), (rows.as_slice(), 0));
                let probabilities = empty(&shape, DType::F32, &device)?;
                let (_, gradient) =
                    options.value_and_grad_probabilities(&logits, &probabilities)?;
                assert_eq!(gradient.dims(), shape);
            }
        }
    }
    Ok(())
}

#[test]
fn a_gradient_to_no_rows_is_an_error_that_names_them() -> Result<()> {
    let device = cuda()?;
    let logits = Var::ones((2, 3), DType::F32, &device)?;
    let none = logits.narrow(0, 0, 0)?;
    let targets = Tensor::zeros(2, DType::U32, &device)?.narrow(0, 0, 0)?;
    let probabilities = Tensor::ones((2, 3), DType::F32, &device)?.narrow(0, 0, 0)?;
    for reduction in [Reduction::Mean, Reduction::Sum] {
        let options = CrossEntropy::new().reduction(reduction);
        let losses = [
            (options.forward(&none, &targets)?, "logits"),
            (
                options.forward_probabilities(&none, &probabilities)?,
                "logits",
            ),
            (
                options.forward_probabilities(&probabilities, &none)?,
                "target",
            ),
        ];
        for (loss, argument) in losses {
            let message = loss.backward().expect_err("taken").to_string();
            for part in [
                &*format!("cross_entropy: {argument}"),
                "[0, 3]",
                "the empty batch",
            ] {
                assert!(message.contains(part), "{message:?} lacks {part:?}");
            }
        }
    }
    Ok(())
}
