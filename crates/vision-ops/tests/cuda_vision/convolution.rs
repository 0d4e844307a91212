//! Convolution on CUDA against the CPU in f64.

use candle_core::{DType, Result, Tensor, Var};
use candle_vision_ops::{Conv2dOptions, conv2d};
use proptest::prelude::*;

use crate::support::{DTYPES, assert_agrees, cuda, random, rounding, values};

/// x, weight, options: every option alone and together, non-square everywhere, batch 1 and more, odd channel counts.
pub(crate) fn cases() -> Vec<([usize; 4], [usize; 4], Conv2dOptions)> {
    let plain = Conv2dOptions::default();
    vec![
        ([2, 3, 7, 5], [4, 3, 3, 2], plain),
        ([1, 1, 1, 1], [1, 1, 1, 1], plain),
        ([3, 2, 5, 6], [17, 2, 1, 1], plain),
        // One position, so that a matrix is a column.
        ([3, 2, 5, 5], [6, 2, 5, 5], plain),
        (
            [3, 1, 6, 9],
            [2, 1, 3, 5],
            Conv2dOptions {
                padding: (1, 2),
                ..plain
            },
        ),
        (
            [2, 2, 8, 7],
            [3, 2, 3, 2],
            Conv2dOptions {
                stride: (2, 3),
                ..plain
            },
        ),
        (
            [1, 2, 9, 8],
            [2, 2, 2, 3],
            Conv2dOptions {
                dilation: (3, 2),
                ..plain
            },
        ),
        (
            [2, 4, 5, 6],
            [6, 2, 2, 3],
            Conv2dOptions { groups: 2, ..plain },
        ),
        // Depthwise, of one image and of more.
        (
            [1, 3, 6, 5],
            [3, 1, 3, 3],
            Conv2dOptions {
                groups: 3,
                padding: (1, 1),
                ..plain
            },
        ),
        (
            [3, 3, 4, 5],
            [6, 1, 2, 2],
            Conv2dOptions { groups: 3, ..plain },
        ),
        // Everything at once, with more padding than kernel.
        (
            [2, 4, 9, 11],
            [6, 2, 3, 2],
            Conv2dOptions {
                stride: (2, 3),
                padding: (4, 1),
                dilation: (2, 3),
                groups: 2,
            },
        ),
    ]
}

fn inputs(x: &[usize], weight: &[usize]) -> Vec<Tensor> {
    vec![random(1, x), random(2, weight), random(3, &weight[..1])]
}

#[test]
fn every_option_agrees_with_the_cpu_in_every_dtype_and_layout() {
    for (x, weight, options) in cases() {
        let inputs = inputs(&x, &weight);
        for dtype in DTYPES {
            let what = format!("{x:?} {weight:?} {options:?}");
            let with_bias = |t: &[Tensor]| conv2d(&t[0], &t[1], Some(&t[2]), options);
            assert_agrees(&what, with_bias, &inputs, dtype, rounding(dtype));
            let without = |t: &[Tensor]| conv2d(&t[0], &t[1], None, options);
            assert_agrees(&what, without, &inputs[..2], dtype, rounding(dtype));
        }
    }
}

#[test]
fn not_a_number_stays_where_the_kernel_sees_it() -> Result<()> {
    let mut numbers = values(&random(4, &[1, 1, 4, 5]));
    numbers[7] = f64::NAN;
    let x = Tensor::from_vec(numbers, (1, 1, 4, 5), &cuda())?;
    let weight = random(5, &[1, 1, 2, 2]).to_device(x.device())?;
    let y = values(&conv2d(&x, &weight, None, Conv2dOptions::default())?);
    let places: Vec<usize> = (0..y.len()).filter(|&i| y[i].is_nan()).collect();
    // Element (1, 2) is seen by results (0..=1, 1..=2) of 3 x 4.
    assert_eq!(places, [1, 2, 5, 6]);
    Ok(())
}

#[test]
fn only_tracked_arguments_get_gradients() -> Result<()> {
    let device = cuda();
    let [x, weight, bias] = [
        random(1, &[2, 2, 4, 4]),
        random(2, &[3, 2, 2, 2]),
        random(3, &[3]),
    ]
    .map(|t| t.to_device(&device).unwrap());
    for tracked in 0..3 {
        let mut arguments = [x.clone(), weight.clone(), bias.clone()];
        let var = Var::from_tensor(&arguments[tracked])?;
        arguments[tracked] = var.as_tensor().clone();
        let y = conv2d(
            &arguments[0],
            &arguments[1],
            Some(&arguments[2]),
            Conv2dOptions::default(),
        )?;
        let grads = y.sum_all()?.backward()?;
        for (index, argument) in arguments.iter().enumerate() {
            assert_eq!(grads.get(argument).is_some(), index == tracked);
        }
    }
    Ok(())
}

#[test]
fn an_empty_batch_gives_an_empty_result() -> Result<()> {
    let device = cuda();
    let x = random(1, &[2, 2, 4, 4])
        .to_device(&device)?
        .narrow(0, 0, 0)?;
    let weight = random(2, &[3, 2, 2, 2]).to_device(&device)?;
    let bias = random(3, &[3]).to_device(&device)?;
    let y = conv2d(&x, &weight, Some(&bias), Conv2dOptions::default())?;
    assert_eq!(y.dims(), [0, 3, 3, 3]);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_geometry_agrees_with_the_cpu(
        (batch, groups, group_inputs, group_outputs) in (1usize..4, 1usize..4, 1usize..3, 1usize..3),
        (height, width) in (1usize..9, 1usize..9),
        (kernel_rows, kernel_columns) in (1usize..4, 1usize..4),
        stride in (1usize..4, 1usize..4),
        padding in (0usize..3, 0usize..3),
        dilation in (1usize..3, 1usize..3),
    ) {
        let fits = |size: usize, padding: usize, kernel: usize, dilation: usize| {
            size + 2 * padding > dilation * (kernel - 1)
        };
        prop_assume!(fits(height, padding.0, kernel_rows, dilation.0));
        prop_assume!(fits(width, padding.1, kernel_columns, dilation.1));
        let options = Conv2dOptions { stride, padding, dilation, groups };
        let x = [batch, groups * group_inputs, height, width];
        let weight = [groups * group_outputs, group_inputs, kernel_rows, kernel_columns];
        let op = |t: &[Tensor]| conv2d(&t[0], &t[1], Some(&t[2]), options);
        assert_agrees(&format!("{x:?} {weight:?} {options:?}"), op, &inputs(&x, &weight), DType::F64, 1e-12);
    }
}
