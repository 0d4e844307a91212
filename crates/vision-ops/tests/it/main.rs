//! The public ops under `candle-gradcheck`: non-unit and zero upstream gradients, strided storage surrounded by NaN, repeated
//! backward passes, every argument tracked alone, single precision against an f64 evaluation.

use candle_core::{DType, Device, Result, Tensor};
use candle_gradcheck::GradCheck;
use candle_simd::{Isa, with_isa};
use candle_vision_ops::{Conv2dOptions, conv2d, conv2d_relu_max_pool2d, linear, max_pool2d};

/// Spread-out numbers without ties: multiples of an irrational number, folded into [-1, 1).
fn numbers(start: usize, shape: &[usize], dtype: DType) -> Result<Tensor> {
    let count = shape.iter().product();
    let data: Vec<f64> = (0..count)
        .map(|i| ((start + i) as f64 * 0.618_033_988_749_894_9).fract() * 2.0 - 1.0)
        .collect();
    Tensor::from_vec(data, shape, &Device::Cpu)?.to_dtype(dtype)
}

/// Checks `op` on tensors of these shapes, for each dtype on each instruction set of this machine.
fn check(
    op: impl Fn(&[Tensor]) -> Result<Tensor>,
    shapes: &[&[usize]],
    dtypes: &[DType],
) -> Result<()> {
    for &dtype in dtypes {
        let inputs: Vec<Tensor> = shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| numbers(1000 * i + 7, shape, dtype))
            .collect::<Result<_>>()?;
        for isa in Isa::available() {
            let report = with_isa(isa, || GradCheck::new().check(&op, &inputs))?;
            report.into_result()?;
        }
    }
    Ok(())
}

const FLOATS: [DType; 2] = [DType::F64, DType::F32];

#[test]
fn max_pool2d_passes() -> Result<()> {
    let dtypes = [DType::F64, DType::F32, DType::F16, DType::BF16];
    for (shape, kernel, stride) in [
        ([2, 3, 4, 6], (2, 2), (2, 2)),
        ([1, 2, 7, 5], (3, 2), (1, 2)),
        ([1, 1, 5, 9], (2, 3), (3, 1)),
    ] {
        check(|t| max_pool2d(&t[0], kernel, stride), &[&shape], &dtypes)?;
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
        &[&[2, 3, 6, 5], &[4, 3, 3, 2], &[4]],
        &FLOATS,
    )?;
    check(
        |t| conv2d(&t[0], &t[1], Some(&t[2]), all),
        &[&[1, 4, 5, 9], &[6, 2, 3, 2], &[6]],
        &FLOATS,
    )?;
    check(
        |t| {
            conv2d(
                &t[0],
                &t[1],
                None,
                Conv2dOptions {
                    padding: (1, 1),
                    ..plain
                },
            )
        },
        &[&[3, 1, 4, 7], &[17, 1, 3, 3]],
        &FLOATS,
    )
}

#[test]
fn linear_passes() -> Result<()> {
    for relu in [false, true] {
        check(
            |t| linear(&t[0], &t[1], Some(&t[2]), relu),
            &[&[5, 9], &[17, 9], &[17]],
            &FLOATS,
        )?;
        check(
            |t| linear(&t[0], &t[1], None, relu),
            &[&[2, 3, 4], &[6, 4]],
            &FLOATS,
        )?;
    }
    Ok(())
}

#[test]
fn conv2d_relu_max_pool2d_passes_on_every_plan() -> Result<()> {
    let plain = Conv2dOptions::default();
    let padded = Conv2dOptions {
        padding: (2, 1),
        ..plain
    };
    let cases: [(&[usize], &[usize], _, _, _); 6] = [
        (&[2, 1, 8, 20], &[6, 1, 3, 5], plain, (2, 2), (2, 2)),
        (&[1, 2, 5, 17], &[3, 2, 2, 3], padded, (2, 2), (2, 2)),
        (&[2, 3, 7, 6], &[16, 3, 2, 3], plain, (2, 2), (2, 2)),
        (&[1, 2, 4, 5], &[17, 2, 3, 3], padded, (2, 2), (2, 2)),
        (&[2, 2, 7, 6], &[3, 2, 2, 3], plain, (3, 2), (2, 1)),
        (&[1, 1, 18, 18], &[2, 1, 2, 1], plain, (17, 17), (1, 1)),
    ];
    for (x, weight, options, kernel, stride) in cases {
        check(
            |t| conv2d_relu_max_pool2d(&t[0], &t[1], &t[2], options, kernel, stride),
            &[x, weight, &weight[..1]],
            &FLOATS,
        )?;
    }
    Ok(())
}
