//! What comes beside the loss agrees with the CPU: values, gradients, argmax and the count.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_losses::{CrossEntropy, Reduction};

use crate::support::{compare, cuda, indices, numbers};

#[test]
fn lse_log_probability_argmax_and_count_agree() -> Result<()> {
    let device = cuda()?;
    for dims in [
        vec![13, 3],
        vec![9, 77],
        vec![3, 1500],
        vec![2, 6, 5],
        vec![12],
    ] {
        for smoothing in [0.0, 0.2] {
            for reduction in [Reduction::Mean, Reduction::None] {
                let options = CrossEntropy::new()
                    .ignore_index(-100)
                    .label_smoothing(smoothing)
                    .reduction(reduction);
                let (x, t) = (numbers(1, &dims)?, indices(2, &dims, Some(-100))?);
                let wanted = options.forward_with_outputs(&x, &t)?;
                let x = x.to_dtype(DType::F32)?.to_device(&device)?;
                let found = options.forward_with_outputs(&x, &t.to_device(&device)?)?;
                compare("loss", &wanted.loss, &found.loss, 2e-5)?;
                compare("lse", &wanted.lse, &found.lse, 2e-5)?;
                compare(
                    "log p",
                    &wanted.target_log_prob,
                    &found.target_log_prob,
                    2e-5,
                )?;
                assert_eq!(wanted.argmax.dims(), found.argmax.dims());
                compare("argmax", &wanted.argmax, &found.argmax, 0.0)?;
                assert_eq!(wanted.correct, found.correct);
            }
        }
    }
    Ok(())
}

#[test]
fn the_first_of_equal_maxima_is_the_argmax_and_nan_is_none() -> Result<()> {
    let device = cuda()?;
    for classes in [4, 60, 1100] {
        for scale in [1.0, 1.5] {
            let (inf, nan) = (f32::NEG_INFINITY, f32::NAN);
            let mut rows = vec![vec![0f32; classes]; 5];
            rows[0][1] = 2.0;
            rows[0][3] = 2.0;
            rows[2].fill(inf);
            rows[2][0] = nan;
            rows[3].fill(nan);
            rows[4].fill(inf);
            rows[4][2] = -5.0;
            let x = Tensor::new(rows, &device)?;
            let t = Tensor::new(&[1u32, 1, 0, 0, 2], &device)?;
            let out = CrossEntropy::new()
                .logit_scale(scale)
                .forward_with_outputs(&x, &t)?;
            // Of what is -inf or NaN alone, the first -inf, else class 0.
            assert_eq!(out.argmax.to_vec1::<u32>()?, [1, 0, 1, 0, 2], "{classes}");
            assert_eq!(out.correct, 3, "{classes}");
        }
    }
    Ok(())
}

#[test]
fn lse_and_log_probability_are_differentiable_with_the_loss() -> Result<()> {
    let gradient = |x: &Tensor,
                    t: &Tensor,
                    o: &CrossEntropy,
                    weights: [f64; 3],
                    device: &Device|
     -> Result<Tensor> {
        let x = Var::from_tensor(&x.to_device(device)?)?;
        let out = o.forward_with_outputs(&x, &t.to_device(device)?)?;
        let rows = Tensor::arange(1f64, (t.elem_count() + 1) as f64, device)?
            .reshape(t.dims())?
            .to_dtype(out.lse.dtype())?;
        let sum = ((out.loss.flatten_all()?.sum_all()? * weights[0])?
            + (((out.lse * &rows)?.sum_all()? * weights[1])?
                + ((out.target_log_prob * rows)?.sum_all()? * weights[2])?)?)?;
        Ok(sum.backward()?.get(&x).unwrap().clone())
    };
    let device = cuda()?;
    for dims in [vec![9, 3], vec![5, 60], vec![2, 1300], vec![2, 5, 3]] {
        for smoothing in [0.0, 0.2] {
            for reduction in [Reduction::Mean, Reduction::None] {
                for weights in [
                    [0.7, 0.0, 0.0],
                    [0.0, 1.0, 0.0],
                    [0.0, 0.0, 1.0],
                    [0.7, -0.3, 0.2],
                ] {
                    let options = CrossEntropy::new()
                        .ignore_index(-100)
                        .label_smoothing(smoothing)
                        .reduction(reduction);
                    let (x, t) = (numbers(3, &dims)?, indices(4, &dims, Some(-100))?);
                    let wanted = gradient(&x, &t, &options, weights, &Device::Cpu)?;
                    let found = gradient(&x, &t, &options, weights, &device)?;
                    compare(&format!("{dims:?} {weights:?}"), &wanted, &found, 1e-11)?;
                }
            }
        }
    }
    Ok(())
}
