//! Extremes of value and shape: infinities, NaN, huge shifts, nothing to average, no rows.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_simd::{Isa, with_isa};

use super::oracle::close;
use crate::{CrossEntropy, EmptyPolicy, Reduction};

const INF: f64 = f64::INFINITY;

/// Class counts that take each form of the kernel, and with the options of the general one.
fn settings() -> Vec<(usize, CrossEntropy)> {
    [2, 5, 17, 48, 130]
        .into_iter()
        .flat_map(|classes| {
            [
                (classes, CrossEntropy::new()),
                // No effect on the value, but takes the general form.
                (classes, CrossEntropy::new().logit_scale(1.0 + f64::EPSILON)),
            ]
        })
        .collect()
}

/// The loss of each row and the gradient of their sum, row by row.
type LossAndGradient = (Vec<f64>, Vec<Vec<f64>>);

/// Loss of each row and gradient of their sum, by the fused form on every instruction set and by the composed one.
fn all_forms(
    options: &CrossEntropy,
    logits: &Tensor,
    targets: &Tensor,
) -> Result<Vec<LossAndGradient>> {
    let options = options.clone().reduction(Reduction::None);
    let run = |fused: bool| -> Result<_> {
        let logits = Var::from_tensor(logits)?;
        let loss = if fused {
            options.forward(&logits, targets)?
        } else {
            options.composed(&logits, targets)?
        };
        let gradients = loss.sum_all()?.backward()?;
        let gradient = gradients
            .get(&logits)
            .unwrap()
            .to_dtype(DType::F64)?
            .to_vec2::<f64>()?;
        Ok((loss.to_dtype(DType::F64)?.to_vec1::<f64>()?, gradient))
    };
    let mut results = vec![run(false)?];
    for isa in Isa::available() {
        results.push(with_isa(isa, || run(true))?);
    }
    Ok(results)
}

#[test]
fn a_shift_of_all_logits_changes_nothing_even_by_1e8() -> Result<()> {
    for (classes, options) in settings() {
        for dtype in [DType::F32, DType::F64] {
            // Multiples of 8 are exact in f32 at 1e8.
            let x: Vec<f64> = (0..3 * classes)
                .map(|i| f64::from((i * 7 % 5) as u32) * 8.0)
                .collect();
            let logits = Tensor::from_vec(x, (3, classes), &Device::Cpu)?;
            let targets = Tensor::new(&[0u32, 1, (classes - 1) as u32], &Device::Cpu)?;
            let plain = all_forms(&options, &logits.to_dtype(dtype)?, &targets)?;
            for shift in [1e8, -1e8] {
                let shifted = all_forms(&options, &(&logits + shift)?.to_dtype(dtype)?, &targets)?;
                for ((a, da), (b, db)) in plain.iter().zip(shifted) {
                    assert!(
                        a.iter().zip(&b).all(|(a, b)| close(*b, *a, 1e-5)),
                        "{classes}: {a:?} {b:?}"
                    );
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
            let kept: Vec<f64> = x
                .iter()
                .filter(|x| x.is_finite())
                .map(|&x| f64::from(x))
                .collect();
            let lse = kept.iter().map(|x| x.exp()).sum::<f64>().ln();
            for (loss, gradient) in all_forms(&options, &logits, &targets)? {
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
        for (loss, gradient) in all_forms(&options, &logits, &Tensor::new(&[1u32], &Device::Cpu)?)?
        {
            assert_eq!(loss, [INF], "{classes}");
            assert!(close(gradient[0][1], -1.0, 1e-6));
            assert!(close(gradient[0][0], 1.0 / (classes - 1) as f64, 1e-6));
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
            for (loss, gradient) in all_forms(&options, &logits, &targets)? {
                assert!(loss[1].is_nan(), "{classes} {poison}: {loss:?}");
                assert!(
                    gradient[1].iter().all(|g| g.is_nan()),
                    "{classes} {poison}: {gradient:?}"
                );
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
        for (loss, _) in all_forms(&options, &logits, &Tensor::new(&[0u32], &Device::Cpu)?)? {
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
            for (loss, gradient) in all_forms(&options, &logits, &targets)? {
                assert_eq!(loss[1], 0.0, "{classes} {poison}");
                assert!(gradient[1].iter().all(|&g| g == 0.0), "{classes} {poison}");
                assert!(loss[0] > 0.0 && loss[2] > 0.0);
            }
            let mean = options.forward(&logits, &targets)?.to_scalar::<f32>()?;
            assert!(mean.is_finite());
        }
    }
    Ok(())
}

#[test]
fn zero_coefficients_hide_minus_infinity_in_probabilities_and_smoothing() -> Result<()> {
    let logits = Tensor::new(&[[0.0f64, -INF, 1.0]], &Device::Cpu)?;
    let expected = (1.0 + 1f64.exp()).ln() - 1.0;
    let one_hot = Tensor::new(&[[0.0f64, 0.0, 1.0]], &Device::Cpu)?;
    let options = CrossEntropy::new();
    for loss in [
        options.forward_probabilities(&logits, &one_hot)?,
        options.composed_probabilities(&logits, &one_hot)?,
    ] {
        assert!(close(loss.to_scalar()?, expected, 1e-12));
    }
    let weight = Tensor::new(&[1.0f64, 0.0, 1.0], &Device::Cpu)?;
    let options = CrossEntropy::new().weight(weight).label_smoothing(0.5);
    let targets = Tensor::new(&[2u32], &Device::Cpu)?;
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
    let weight = Tensor::new(&[0.0f32, 1.0, 1.0], &Device::Cpu)?;
    let ignored = CrossEntropy::new().ignore_index(-1);
    let weightless = CrossEntropy::new().weight(weight);
    for (options, target) in [(ignored, -1i64), (weightless, 0)] {
        for policy in [EmptyPolicy::Nan, EmptyPolicy::Zero] {
            let options = options.clone().on_empty(policy);
            let logits = Var::new(&[[1f32, 2., 3.], [3., 2., 1.]], &Device::Cpu)?;
            let targets = Tensor::new(&[target, target], &Device::Cpu)?;
            let (value, grad) = options.value_and_grad(&logits, &targets)?;
            for loss in [
                options.forward(&logits, &targets)?,
                options.composed(&logits, &targets)?,
                value,
            ] {
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
            let sum = options
                .clone()
                .reduction(Reduction::Sum)
                .forward(&logits, &targets)?
                .to_scalar::<f32>()?;
            assert_eq!(sum, 0.0, "a sum has no policy");
        }
    }
    Ok(())
}

#[test]
fn no_rows_give_an_empty_gradient() -> Result<()> {
    for shape in [vec![0, 3], vec![0, 3, 2], vec![2, 3, 0]] {
        for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
            for policy in [EmptyPolicy::Nan, EmptyPolicy::Zero] {
                let options = CrossEntropy::new().reduction(reduction).on_empty(policy);
                let logits = Var::zeros(shape.as_slice(), DType::F32, &Device::Cpu)?;
                let mut rows = shape.clone();
                rows.remove(1);
                let targets = Tensor::zeros(rows.as_slice(), DType::U32, &Device::Cpu)?;
                for fused in [true, false] {
                    let loss = if fused {
                        options.forward(&logits, &targets)?
                    } else {
                        options.composed(&logits, &targets)?
                    };
                    match reduction {
                        Reduction::None => assert_eq!(loss.dims(), rows),
                        Reduction::Sum => assert_eq!(loss.to_scalar::<f32>()?, 0.0),
                        Reduction::Mean => assert_eq!(
                            loss.to_scalar::<f32>()?.is_nan(),
                            policy == EmptyPolicy::Nan
                        ),
                    }
                    let gradients = loss.sum_all()?.backward()?;
                    assert_eq!(
                        gradients.get(&logits).unwrap().dims(),
                        shape,
                        "fused: {fused}"
                    );
                }
                let (_, gradient) = options.value_and_grad(&logits, &targets)?;
                assert_eq!(gradient.dims(), shape);
                let outputs = options.forward_with_outputs(&logits, &targets)?;
                assert_eq!((outputs.lse.dims(), outputs.correct), (rows.as_slice(), 0));
            }
        }
    }
    Ok(())
}

#[test]
fn half_precision_sums_in_f32() -> Result<()> {
    // In f16, 4096 terms of 1 would stop growing at 2048.
    for dtype in [DType::F16, DType::BF16] {
        for classes in [4096, 40_000] {
            let logits = Var::zeros((2, classes), dtype, &Device::Cpu)?;
            let targets = Tensor::new(&[0u32, 1], &Device::Cpu)?;
            let loss = crate::cross_entropy(&logits, &targets)?;
            assert_eq!(loss.dtype(), DType::F32);
            assert!(close(
                f64::from(loss.to_scalar::<f32>()?),
                (classes as f64).ln(),
                1e-5
            ));
            assert_eq!(loss.backward()?.get(&logits).unwrap().dtype(), dtype);
        }
    }
    Ok(())
}

#[test]
fn zero_smoothing_equals_plain() -> Result<()> {
    let logits = Tensor::new(&[[0.3f32, -1.0, 2.0], [1.0, 0.0, -0.5]], &Device::Cpu)?;
    let targets = Tensor::new(&[2u32, 0], &Device::Cpu)?;
    let plain = crate::cross_entropy(&logits, &targets)?.to_scalar::<f32>()?;
    let smoothed = CrossEntropy::new()
        .label_smoothing(0.0)
        .forward(&logits, &targets)?
        .to_scalar::<f32>()?;
    assert_eq!(plain, smoothed);
    Ok(())
}
