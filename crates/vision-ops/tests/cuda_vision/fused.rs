//! Convolution, relu and pooling in one op on CUDA, against the CPU in f64.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_vision_ops::{Conv2dOptions, conv2d_relu_max_pool2d};

use crate::support::{assert_agrees, cuda, random, rounding, values};

type Pair = (usize, usize);

/// x, weight, options, pooling kernel and stride.
type Case = ([usize; 4], [usize; 4], Conv2dOptions, Pair, Pair);

fn cases() -> Vec<Case> {
    let plain = Conv2dOptions::default();
    vec![
        ([2, 1, 9, 12], [3, 1, 3, 2], plain, (2, 2), (2, 2)),
        ([3, 1, 12, 20], [6, 1, 5, 5], plain, (2, 2), (2, 2)),
        (
            [2, 2, 6, 16],
            [2, 2, 3, 3],
            Conv2dOptions {
                padding: (2, 1),
                ..plain
            },
            (2, 2),
            (2, 2),
        ),
        ([1, 3, 6, 9], [17, 3, 1, 2], plain, (2, 2), (2, 2)),
        ([2, 2, 9, 8], [3, 2, 3, 2], plain, (3, 2), (2, 1)),
        (
            [1, 4, 9, 11],
            [6, 2, 2, 3],
            Conv2dOptions { groups: 2, ..plain },
            (2, 2),
            (2, 2),
        ),
        (
            [2, 2, 11, 12],
            [4, 2, 3, 2],
            Conv2dOptions {
                stride: (2, 1),
                dilation: (1, 3),
                ..plain
            },
            (2, 2),
            (2, 2),
        ),
        // More than 256 elements in a window: three ops.
        ([1, 1, 18, 19], [2, 1, 2, 2], plain, (17, 17), (1, 1)),
    ]
}

#[test]
fn every_case_agrees_with_the_cpu_in_single_and_double_precision() {
    for (x, weight, options, kernel, stride) in cases() {
        let inputs = [random(1, &x), random(2, &weight), random(3, &weight[..1])];
        for dtype in [DType::F64, DType::F32] {
            let what = format!("{x:?} {weight:?} {options:?} {kernel:?} {stride:?}");
            let op =
                |t: &[Tensor]| conv2d_relu_max_pool2d(&t[0], &t[1], &t[2], options, kernel, stride);
            assert_agrees(&what, op, &inputs, dtype, 4.0 * rounding(dtype));
        }
    }
}

/// Small whole numbers, which half precision holds exactly, sums included: so both devices choose the same winners.
fn whole(seed: u64, shape: &[usize]) -> Result<Tensor> {
    (random(seed, shape) * 2.0)?.round()
}

#[test]
fn half_precision_agrees_exactly_on_whole_numbers_with_ties() -> Result<()> {
    for (x, weight, options, kernel, stride) in cases() {
        let inputs = [whole(1, &x)?, whole(2, &weight)?, whole(3, &weight[..1])?];
        for dtype in [DType::F16, DType::BF16, DType::F32] {
            // The upstream gradient is rounded in half precision; forward is exact.
            let op = |t: &[Tensor]| {
                let y = conv2d_relu_max_pool2d(&t[0], &t[1], &t[2], options, kernel, stride)?;
                (y * 0.5)?.round()
            };
            let device = cuda();
            let there = |t: &Tensor| t.to_dtype(dtype)?.to_device(&device);
            let got = op(&inputs.iter().map(there).collect::<Result<Vec<_>>>()?)?;
            assert_eq!(
                values(&got),
                values(&op(&inputs)?),
                "{x:?} {weight:?} {dtype:?}"
            );
            let what = format!("{x:?} {weight:?} {options:?}");
            let op =
                |t: &[Tensor]| conv2d_relu_max_pool2d(&t[0], &t[1], &t[2], options, kernel, stride);
            assert_agrees(&what, op, &inputs, dtype, 4.0 * rounding(dtype));
        }
    }
    Ok(())
}

#[test]
fn the_first_of_equal_maxima_takes_all_and_nothing_passes_at_zero() -> Result<()> {
    let device = cuda();
    // A 1 x 1 kernel of 1 shows the map itself: two windows, one of equal maxima, one that relu cuts off at exactly 0.
    let x = Var::new(&[[[[1f32, 3., -2., 0.], [3., 3., -1., 0.]]]], &device)?;
    let weight = Tensor::ones((1, 1, 1, 1), DType::F32, &device)?;
    let bias = Tensor::zeros(1, DType::F32, &device)?;
    let y = conv2d_relu_max_pool2d(&x, &weight, &bias, Conv2dOptions::default(), (2, 2), (2, 2))?;
    assert_eq!(values(&y), [3.0, 0.0]);
    let grads = (y * 5.0)?.sum_all()?.backward()?;
    assert_eq!(
        values(grads.get(&x).unwrap()),
        [0., 5., 0., 0., 0., 0., 0., 0.]
    );
    Ok(())
}

#[test]
fn not_a_number_wins_and_lets_the_gradient_pass() -> Result<()> {
    let run = |device: &Device| -> Result<(Vec<f64>, Vec<f64>)> {
        let nan = f32::NAN;
        let x = Var::new(&[[[[1f32, nan, -2., -1.], [nan, 3., -1., -3.]]]], device)?;
        let weight = Tensor::ones((1, 1, 1, 1), DType::F32, device)?;
        let bias = Var::zeros(1, DType::F32, device)?;
        let y =
            conv2d_relu_max_pool2d(&x, &weight, &bias, Conv2dOptions::default(), (2, 2), (2, 2))?;
        let grads = (&y * 5.0)?.sum_all()?.backward()?;
        assert!(values(&y)[0].is_nan());
        Ok((
            values(grads.get(&x).unwrap()),
            values(grads.get(&bias).unwrap()),
        ))
    };
    assert_eq!(run(&cuda())?, run(&Device::Cpu)?);
    Ok(())
}
