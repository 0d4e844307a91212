//! The ops on CUDA under `candle-gradcheck`, in f64 and f32.

use candle_core::{DType, Result, Tensor};
use candle_gradcheck::GradCheck;
use candle_vision_ops::{Conv2dOptions, conv2d, conv2d_relu_max_pool2d, linear, max_pool2d};

use crate::support::{cuda, random};

fn check(op: impl Fn(&[Tensor]) -> Result<Tensor>, shapes: &[&[usize]]) -> Result<()> {
    let device = cuda();
    for dtype in [DType::F64, DType::F32] {
        let inputs: Vec<Tensor> = shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| {
                random(i as u64 + 40, shape)
                    .to_dtype(dtype)?
                    .to_device(&device)
            })
            .collect::<Result<_>>()?;
        GradCheck::new().check(&op, &inputs)?.into_result()?;
    }
    Ok(())
}

#[test]
fn max_pool2d_passes() -> Result<()> {
    for (kernel, stride) in [((2, 2), (2, 2)), ((3, 2), (1, 2))] {
        check(|t| max_pool2d(&t[0], kernel, stride), &[&[1, 2, 5, 4]])?;
    }
    Ok(())
}

#[test]
fn conv2d_passes() -> Result<()> {
    let plain = Conv2dOptions::default();
    let all = Conv2dOptions {
        stride: (2, 3),
        padding: (3, 1),
        dilation: (2, 1),
        groups: 2,
    };
    check(
        |t| conv2d(&t[0], &t[1], Some(&t[2]), plain),
        &[&[2, 2, 4, 3], &[3, 2, 2, 2], &[3]],
    )?;
    check(
        |t| conv2d(&t[0], &t[1], Some(&t[2]), all),
        &[&[2, 4, 5, 6], &[2, 2, 3, 2], &[2]],
    )
}

#[test]
fn linear_passes() -> Result<()> {
    for relu in [false, true] {
        check(
            |t| linear(&t[0], &t[1], Some(&t[2]), relu),
            &[&[3, 4], &[5, 4], &[5]],
        )?;
    }
    Ok(())
}

#[test]
fn conv2d_relu_max_pool2d_passes() -> Result<()> {
    let plain = Conv2dOptions::default();
    for (kernel, stride) in [((2, 2), (2, 2)), ((3, 2), (2, 1))] {
        check(
            |t| conv2d_relu_max_pool2d(&t[0], &t[1], &t[2], plain, kernel, stride),
            &[&[2, 1, 6, 5], &[2, 1, 2, 2], &[2]],
        )?;
    }
    Ok(())
}
