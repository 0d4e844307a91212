//! Targets that are no class: NaN and gradient 0 without waiting for the device, an error where it was asked for.

use candle_core::{DType, Result, Tensor, Var};
use candle_losses::{CrossEntropy, Reduction};

use crate::support::{cuda, numbers, values};

/// Plain rows by lanes and by blocks, and general ones.
fn settings() -> [(usize, CrossEntropy); 3] {
    [
        (5, CrossEntropy::new()),
        (1100, CrossEntropy::new()),
        (7, CrossEntropy::new().label_smoothing(0.1)),
    ]
}

#[test]
fn a_target_out_of_range_makes_its_row_nan_and_its_gradient_zero() -> Result<()> {
    let device = cuda()?;
    for (classes, options) in settings() {
        let far = [classes as i64, -1, i64::MAX, i64::MIN, 1 << 40, 255];
        let bad: Vec<i64> = far
            .into_iter()
            .filter(|&y| y < 0 || y >= classes as i64)
            .collect();
        for bad in bad {
            let options = options.clone().reduction(Reduction::None);
            let x = numbers(1, &[3, classes])?
                .to_dtype(DType::F32)?
                .to_device(&device)?;
            let t = Tensor::new(&[1i64, bad, 2], &device)?;
            let var = Var::from_tensor(&x)?;
            let loss = options.forward(&var, &t)?;
            let through_graph = loss
                .flatten_all()?
                .sum_all()?
                .backward()?
                .get(&var)
                .unwrap()
                .clone();
            let (value, gradient) = options.value_and_grad(&x, &t)?;
            for loss in [loss, value] {
                let loss = values(&loss)?;
                assert!(
                    loss[1].is_nan() && loss[0].is_finite() && loss[2].is_finite(),
                    "{bad}: {loss:?}"
                );
            }
            for gradient in [through_graph, gradient] {
                let gradient = values(&gradient)?;
                assert!(
                    gradient[classes..2 * classes].iter().all(|&g| g == 0.0),
                    "{bad}"
                );
                assert!(gradient.iter().all(|g| g.is_finite()));
                assert!(gradient[0] != 0.0);
            }
            // The other rows are divided by their own number, as in the composed form.
            let mean = options.clone().reduction(Reduction::Mean);
            let (loss, gradient) = mean.value_and_grad(&x, &t)?;
            assert!(loss.to_scalar::<f32>()?.is_nan());
            let var = Var::from_tensor(&x)?;
            let composed = mean.composed(&var, &t)?;
            assert!(composed.to_scalar::<f32>()?.is_nan());
            let all = values(&gradient)?;
            let valid = Tensor::new(&[1i64, 2], &device)?;
            let two = Tensor::cat(&[&x.narrow(0, 0, 1)?, &x.narrow(0, 2, 1)?], 0)?;
            let (_, wanted) = mean.value_and_grad(&two, &valid)?;
            let wanted = values(&wanted)?;
            assert_eq!(all[..classes], wanted[..classes]);
            assert_eq!(all[2 * classes..], wanted[classes..]);
        }
    }
    Ok(())
}

#[test]
fn every_integer_type_is_checked_against_its_own_range() -> Result<()> {
    let device = cuda()?;
    let x = numbers(1, &[3, 4])?
        .to_dtype(DType::F32)?
        .to_device(&device)?;
    let targets = [
        Tensor::new(&[0u8, 255, 3], &device)?,
        Tensor::new(&[0u32, u32::MAX, 3], &device)?,
        Tensor::new(&[0i16, i16::MIN, 3], &device)?,
        Tensor::new(&[0i32, -7, 3], &device)?,
        Tensor::new(&[0i64, 4, 3], &device)?,
    ];
    for t in targets {
        let losses = CrossEntropy::new()
            .reduction(Reduction::None)
            .forward(&x, &t)?;
        let losses = losses.to_vec1::<f32>()?;
        let dtype = t.dtype();
        assert!(
            losses[1].is_nan() && losses[0].is_finite() && losses[2].is_finite(),
            "{dtype:?}: {losses:?}"
        );
        let message = CrossEntropy::new()
            .validate_targets(true)
            .forward(&x, &t)
            .expect_err("accepted")
            .to_string();
        assert!(
            message.contains("row 1") && message.contains("4 classes"),
            "{dtype:?}: {message}"
        );
    }
    Ok(())
}

#[test]
fn validated_targets_are_an_error_of_every_form_and_leave_the_logits() -> Result<()> {
    let device = cuda()?;
    for (classes, options) in settings() {
        let options = options.validate_targets(true).ignore_index(-100);
        let x = numbers(1, &[3, classes])?
            .to_dtype(DType::F32)?
            .to_device(&device)?;
        let t = Tensor::new(&[-100i64, -1, 9999], &device)?;
        let message = |result: Result<()>| result.expect_err("accepted").to_string();
        for message in [
            message(options.forward(&x, &t).map(drop)),
            message(options.forward_with_outputs(&x, &t).map(drop)),
            message(options.value_and_grad(&x, &t).map(drop)),
            message(options.value_and_grad_in_place(x.clone(), &t).map(drop)),
        ] {
            for part in [
                "row 1",
                "got -1",
                &format!("{classes} classes"),
                "ignore_index",
            ] {
                assert!(message.contains(part), "{message:?} lacks {part:?}");
            }
        }
        let untouched = numbers(1, &[3, classes])?;
        assert_eq!(values(&x)?, values(&untouched)?);
        let fine = Tensor::new(&[-100i64, 1, 0], &device)?;
        assert!(options.forward(&x, &fine)?.to_scalar::<f32>()?.is_finite());
    }
    Ok(())
}

#[test]
fn the_first_wrong_row_is_named_far_into_a_large_strided_batch() -> Result<()> {
    let device = cuda()?;
    let (n, d) = (100, 100);
    let mut targets = vec![1u32; n * d];
    targets[7_007] = 9;
    targets[9_000] = 8;
    let targets = Tensor::from_vec(targets, (n, d), &device)?;
    let strided = targets.t()?.contiguous()?.t()?;
    let x = Tensor::zeros((n, 3, d), DType::F32, &device)?;
    for targets in [targets, strided] {
        let message = CrossEntropy::new()
            .validate_targets(true)
            .forward(&x, &targets)
            .expect_err("accepted")
            .to_string();
        assert!(
            message.contains("row 7007") && message.contains("got 9"),
            "{message}"
        );
    }
    Ok(())
}
