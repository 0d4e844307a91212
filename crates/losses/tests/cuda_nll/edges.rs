//! Infinities and NaN, nothing to average, no rows.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_losses::{EmptyPolicy, Nll, Reduction};

use crate::empty::empty;
use crate::support::*;

const NAN: f32 = f32::NAN;
const MINUS_INFINITY: f32 = f32::NEG_INFINITY;

#[test]
fn an_ignored_row_and_classes_beside_the_target_are_not_read() -> Result<()> {
    let device = cuda()?;
    let x = Tensor::new(
        &[
            [NAN, NAN],
            [MINUS_INFINITY, NAN],
            [-0.5, NAN],
            [MINUS_INFINITY, -0.25],
        ],
        &device,
    )?;
    let t = Tensor::new(&[-1i64, -1, 0, 1], &device)?;
    let loss = Nll::new().ignore_index(-1);
    let [losses, gradient] = run(&loss.clone().reduction(Reduction::None), &x, &t, |t| {
        Ok(t.clone())
    })?;
    assert_eq!(losses.to_vec1::<f32>()?, [0.0, 0.0, 0.5, 0.25]);
    let gradient = gradient.to_vec2::<f32>()?;
    assert_eq!(gradient[..2], [[0.0; 2]; 2]);
    assert!(gradient[2][0] != 0.0 && gradient[2][1] == 0.0);
    assert!(gradient[3][0] == 0.0 && gradient[3][1] != 0.0);
    assert_eq!(loss.forward(&x, &t)?.to_scalar::<f32>()?, 0.375);
    Ok(())
}

#[test]
fn a_target_of_minus_infinity_gives_infinity_and_one_of_nan_gives_nan() -> Result<()> {
    let device = cuda()?;
    let x = Tensor::new(&[[MINUS_INFINITY, 0.0], [NAN, 0.0], [-1.0, 0.0]], &device)?;
    let t = Tensor::new(&[0u8, 0, 0], &device)?;
    let [losses, gradient] = run(&Nll::new().reduction(Reduction::None), &x, &t, |t| {
        Ok(t.clone())
    })?;
    let losses = losses.to_vec1::<f32>()?;
    assert!(losses[0] == f32::INFINITY && losses[1].is_nan() && losses[2] == 1.0);
    assert!(values(&gradient)?.iter().all(|g| g.is_finite()));
    Ok(())
}

#[test]
fn the_mean_over_nothing_follows_the_policy_with_gradient_zero() -> Result<()> {
    let device = cuda()?;
    let weightless = Nll::new().weight(Tensor::new(&[0f32, 1.0], &device)?);
    for loss in [Nll::new().ignore_index(0), weightless] {
        for (policy, wanted) in [(EmptyPolicy::Nan, NAN), (EmptyPolicy::Zero, 0.0)] {
            let x = Var::ones((3, 2), DType::F32, &device)?;
            let t = Tensor::zeros(3, DType::U32, &device)?;
            let mean = loss.clone().on_empty(policy).forward(&x, &t)?;
            let value = mean.to_scalar::<f32>()?;
            assert!(value == wanted || (value.is_nan() && wanted.is_nan()));
            let gradients = mean.backward()?;
            let gradient = gradients.get(&x).expect("x is a variable");
            assert_eq!(gradient.to_vec2::<f32>()?, [[0.0; 2]; 3]);
            let sum = loss.clone().reduction(Reduction::Sum).forward(&x, &t)?;
            assert_eq!(sum.to_scalar::<f32>()?, 0.0, "a sum has no policy");
        }
    }
    Ok(())
}

#[test]
fn no_rows_give_the_policy_zero_and_no_losses() -> Result<()> {
    let device = cuda()?;
    for dims in [vec![0, 3], vec![0, 0], vec![0, 3, 2], vec![2, 3, 0]] {
        for dtype in DTYPES {
            let x = empty(&dims, dtype, &device)?;
            let t = empty(&row_dims(&dims), DType::I64, &device)?;
            let wide = match dtype {
                DType::F64 => DType::F64,
                _ => DType::F32,
            };
            for validate in [false, true] {
                let loss = Nll::new().validate_targets(validate);
                let nan = values(&loss.forward(&x, &t)?)?;
                assert!(nan.len() == 1 && nan[0].is_nan());
                let zero = loss.clone().on_empty(EmptyPolicy::Zero).forward(&x, &t)?;
                assert_eq!((values(&zero)?, zero.dtype()), (vec![0.0], wide));
                let sum = loss.clone().reduction(Reduction::Sum).forward(&x, &t)?;
                assert_eq!(values(&sum)?, [0.0]);
                let none = loss.reduction(Reduction::None).forward(&x, &t)?;
                assert_eq!((none.dims(), none.dtype()), (&*row_dims(&dims), wide));
            }
        }
    }
    Ok(())
}

#[test]
fn no_rows_give_the_cpu_a_gradient_and_cuda_an_error_that_names_them() -> Result<()> {
    let loss_of_none = |device: &Device, reduction| -> Result<(Var, Tensor)> {
        let x = Var::ones((2, 3), DType::F32, device)?;
        let t = Tensor::zeros(2, DType::U32, device)?.narrow(0, 0, 0)?;
        let loss = Nll::new()
            .reduction(reduction)
            .forward(&x.narrow(0, 0, 0)?, &t)?;
        Ok((x, loss))
    };
    for reduction in [Reduction::Mean, Reduction::Sum] {
        let (x, loss) = loss_of_none(&Device::Cpu, reduction)?;
        let gradients = loss.backward()?;
        let gradient = gradients.get(&x).expect("x is a variable");
        assert_eq!(gradient.to_vec2::<f32>()?, [[0.0; 3]; 2]);
        let (_, loss) = loss_of_none(&cuda()?, reduction)?;
        let message = loss.backward().expect_err("taken").to_string();
        for part in ["nll: log_probabilities", "[0, 3]", "the empty batch"] {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    }
    Ok(())
}
