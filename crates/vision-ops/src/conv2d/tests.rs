//! Claims about convolution, against the composed form, candle's own forward and central differences.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_simd::{Isa, with_isa};

use super::{Conv2dOptions, composed, conv2d};
use crate::test_support::{
    assert_gradients, awkward_layout, gradients, max_difference, random, values,
};

/// x, weight, options: every option alone and together, non-square everywhere, batch 1 and more, odd channel counts.
fn cases() -> Vec<([usize; 4], [usize; 4], Conv2dOptions)> {
    let plain = Conv2dOptions::default();
    vec![
        ([2, 3, 7, 5], [4, 3, 3, 2], plain),
        ([1, 1, 1, 1], [1, 1, 1, 1], plain),
        // Rows that fill vectors, and go to the result one by one.
        (
            [2, 3, 5, 32],
            [9, 3, 3, 3],
            Conv2dOptions {
                padding: (1, 1),
                ..plain
            },
        ),
        // Rows of one vector: four, two and one go together.
        (
            [2, 2, 7, 16],
            [15, 2, 3, 3],
            Conv2dOptions {
                padding: (1, 1),
                ..plain
            },
        ),
        (
            [1, 4, 4, 24],
            [6, 2, 3, 3],
            Conv2dOptions {
                groups: 2,
                padding: (1, 1),
                ..plain
            },
        ),
        (
            [1, 2, 7, 40],
            [3, 2, 2, 5],
            Conv2dOptions {
                dilation: (2, 2),
                ..plain
            },
        ),
        (
            [1, 2, 6, 64],
            [4, 2, 3, 3],
            Conv2dOptions {
                stride: (2, 2),
                padding: (1, 1),
                ..plain
            },
        ),
        ([1, 2, 5, 6], [17, 2, 1, 1], plain),
        // The kernel covers the image.
        ([3, 2, 4, 5], [17, 2, 4, 5], plain),
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
            [2, 4, 9, 11],
            [6, 2, 3, 2],
            Conv2dOptions {
                stride: (2, 3),
                padding: (3, 1),
                dilation: (2, 3),
                groups: 2,
            },
        ),
        (
            [2, 1, 3, 4],
            [1, 1, 1, 2],
            Conv2dOptions {
                stride: (4, 5),
                padding: (1, 3),
                ..plain
            },
        ),
    ]
}

pub(super) fn padded(rows: usize, columns: usize) -> Conv2dOptions {
    Conv2dOptions {
        padding: (rows, columns),
        ..Default::default()
    }
}

/// Cases whose gradients are taken by pairs of rows: even and odd heights, kernels of three rows and more, which are cut into
/// threes and twos, whole and partial vectors, groups, padding from none to all that a kernel reaches, and dilated columns.
fn pairs_of_rows() -> Vec<([usize; 4], [usize; 4], Conv2dOptions)> {
    vec![
        ([2, 8, 6, 16], [9, 8, 3, 3], padded(1, 1)),
        ([1, 9, 7, 30], [8, 9, 3, 1], padded(0, 0)),
        ([1, 8, 9, 16], [17, 8, 4, 2], padded(3, 1)),
        ([3, 8, 5, 32], [8, 8, 5, 5], padded(2, 2)),
        ([1, 8, 12, 16], [8, 8, 7, 3], padded(1, 2)),
        (
            [2, 16, 11, 16],
            [18, 8, 3, 3],
            Conv2dOptions {
                groups: 2,
                dilation: (1, 2),
                ..padded(2, 4)
            },
        ),
    ]
}

fn arguments(x: [usize; 4], weight: [usize; 4], dtype: DType) -> Result<Vec<Tensor>> {
    Ok(vec![
        random(1, &x, dtype)?,
        random(2, &weight, dtype)?,
        random(3, &weight[..1], dtype)?,
    ])
}

#[test]
fn gradients_of_every_argument_agree_with_central_differences() -> Result<()> {
    // Differences of larger sums would be less exact than the tolerance.
    let small_pairs_of_rows = [
        ([1, 8, 4, 8], [8, 8, 3, 3], padded(1, 1)),
        ([1, 8, 5, 8], [9, 8, 5, 1], padded(2, 0)),
    ];
    for (x, weight, options) in cases().into_iter().chain(small_pairs_of_rows) {
        let arguments = arguments(x, weight, DType::F64)?;
        assert_gradients(
            |t| conv2d(&t[0], &t[1], Some(&t[2]), options),
            &arguments,
            1e-7,
        )?;
        assert_gradients(
            |t| conv2d(&t[0], &t[1], None, options),
            &arguments[..2],
            1e-7,
        )?;
    }
    Ok(())
}

#[test]
fn every_instruction_set_agrees_with_the_composed_form_in_every_layout() -> Result<()> {
    let larger = [
        (
            [3, 5, 12, 19],
            [37, 5, 3, 3],
            Conv2dOptions {
                padding: (1, 1),
                ..Default::default()
            },
        ),
        (
            [33, 3, 9, 8],
            [8, 3, 5, 5],
            Conv2dOptions {
                padding: (2, 2),
                ..Default::default()
            },
        ),
    ];
    for (x, weight, options) in cases().into_iter().chain(pairs_of_rows()).chain(larger) {
        let arguments = arguments(x, weight, DType::F64)?;
        let composed = |t: &[Tensor]| composed::conv2d(&t[0], &t[1], Some(&t[2]), options);
        let (y, grads) = gradients(composed, &arguments, 9)?;
        for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 3e-3)] {
            let plain: Vec<Tensor> = arguments
                .iter()
                .map(|t| t.to_dtype(dtype))
                .collect::<Result<_>>()?;
            let strided = vec![
                awkward_layout(&plain[0])?,
                awkward_layout(&plain[1])?,
                plain[2].clone(),
            ];
            for arguments in [plain, strided] {
                for isa in Isa::available() {
                    let ours = |t: &[Tensor]| conv2d(&t[0], &t[1], Some(&t[2]), options);
                    let (y2, grads2) = with_isa(isa, || gradients(ours, &arguments, 9))?;
                    assert!(
                        max_difference(&y, &y2)? < tolerance,
                        "{isa:?} {x:?} {weight:?} {options:?}"
                    );
                    for (grad, grad2) in grads.iter().zip(&grads2) {
                        let difference = max_difference(grad, grad2)?;
                        assert!(
                            difference < tolerance,
                            "{isa:?} {x:?} {weight:?} {options:?}: {difference}"
                        );
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn forward_agrees_with_candle() -> Result<()> {
    for (x, weight, options) in cases() {
        let Conv2dOptions {
            stride,
            padding,
            dilation,
            groups,
        } = options;
        if stride.0 != stride.1 || padding.0 != padding.1 || dilation.0 != dilation.1 {
            continue;
        }
        let t = arguments(x, weight, DType::F64)?;
        let expected = t[0].conv2d(&t[1], padding.0, stride.0, dilation.0, groups)?;
        let got = conv2d(&t[0], &t[1], None, options)?;
        assert!(max_difference(&got, &expected)? < 1e-12);
    }
    Ok(())
}

#[test]
fn a_strided_view_inside_the_graph_gets_its_gradient() -> Result<()> {
    let x = random(3, &[2, 5, 6, 3], DType::F64)?;
    let weight = random(4, &[2, 3, 3, 2], DType::F64)?;
    assert_gradients(
        |t| {
            conv2d(
                &t[0].permute((0, 3, 1, 2))?,
                &t[1].transpose(0, 1)?.transpose(0, 1)?,
                None,
                Conv2dOptions::default(),
            )
        },
        &[x, weight],
        1e-7,
    )
}

#[test]
fn an_argument_that_tracks_nothing_gets_no_gradient() -> Result<()> {
    let t = arguments([1, 2, 4, 4], [2, 2, 3, 3], DType::F32)?;
    let weight = Var::from_tensor(&t[1])?;
    let grads = conv2d(&t[0], &weight, Some(&t[2]), Conv2dOptions::default())?.backward()?;
    assert!(grads.get(&weight).is_some());
    assert!(grads.get(&t[0]).is_none() && grads.get(&t[2]).is_none());
    Ok(())
}

#[test]
fn an_empty_batch_has_zero_weight_gradients() -> Result<()> {
    let x = Var::from_tensor(&Tensor::zeros((0, 2, 4, 5), DType::F32, &Device::Cpu)?)?;
    let weight = Var::from_tensor(&random(1, &[3, 2, 2, 2], DType::F32)?)?;
    let y = conv2d(&x, &weight, None, Conv2dOptions::default())?;
    assert_eq!(y.dims(), [0, 3, 3, 4]);
    let grads = y.backward()?;
    assert_eq!(grads.get(&x).unwrap().dims(), [0, 2, 4, 5]);
    assert!(
        values(grads.get(&weight).unwrap())?
            .iter()
            .all(|&g| g == 0.0)
    );
    Ok(())
}

#[test]
fn one_thread_and_two_give_the_same_bits() -> Result<()> {
    let options = Conv2dOptions {
        padding: (1, 1),
        ..Default::default()
    };
    let t = arguments([37, 3, 17, 19], [16, 3, 3, 3], DType::F32)?;
    let run = |threads| -> Result<(Tensor, Vec<Tensor>)> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(candle_core::Error::wrap)?;
        pool.install(|| gradients(|t| conv2d(&t[0], &t[1], Some(&t[2]), options), &t, 4))
    };
    let ((y, grads), (y2, grads2)) = (run(1)?, run(2)?);
    assert_eq!(max_difference(&y, &y2)?, 0.0);
    for (grad, grad2) in grads.iter().zip(&grads2) {
        assert_eq!(max_difference(grad, grad2)?, 0.0);
    }
    Ok(())
}

#[test]
fn bad_arguments_are_named() -> Result<()> {
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu);
    let x = zeros(&[1, 4, 5, 6], DType::F32)?;
    let weight = zeros(&[2, 4, 3, 3], DType::F32)?;
    let plain = Conv2dOptions::default();
    let message = |x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, options| {
        conv2d(x, weight, bias, options).unwrap_err().to_string()
    };
    let cases = [
        (
            message(&zeros(&[4, 5, 6], DType::F32)?, &weight, None, plain),
            "conv2d: `x` must have 4 dimensions (N, C_in, H, W), got shape [4, 5, 6]",
        ),
        (
            message(&x, &zeros(&[2, 4, 3], DType::F32)?, None, plain),
            "conv2d: `weight` must have 4 dimensions",
        ),
        (
            message(&zeros(&[1, 4, 5, 6], DType::F16)?, &weight, None, plain),
            "conv2d: `x` must be f32, f64, got F16",
        ),
        (
            message(&x, &zeros(&[2, 4, 3, 3], DType::F64)?, None, plain),
            "conv2d: `weight` must be f32, got F64",
        ),
        (
            message(&x, &zeros(&[2, 3, 3, 3], DType::F32)?, None, plain),
            "conv2d: `weight` must have shape (2, 4, 3, 3), got [2, 3, 3, 3]",
        ),
        (
            message(&x, &weight, Some(&zeros(&[3], DType::F32)?), plain),
            "conv2d: `bias` must have shape (2), got [3]",
        ),
        (
            message(
                &x,
                &weight,
                None,
                Conv2dOptions {
                    stride: (0, 1),
                    ..plain
                },
            ),
            "conv2d: `stride` must be at least 1",
        ),
        (
            message(
                &x,
                &weight,
                None,
                Conv2dOptions {
                    dilation: (1, 0),
                    ..plain
                },
            ),
            "conv2d: `dilation` must be at least 1",
        ),
        (
            message(&x, &weight, None, Conv2dOptions { groups: 3, ..plain }),
            "conv2d: `groups` must be a divisor of the channels, 4 in and 2 out, got 3",
        ),
        (
            message(
                &x,
                &weight,
                None,
                Conv2dOptions {
                    dilation: (3, 1),
                    ..plain
                },
            ),
            "no larger, dilated, than the 5 x 6 padded image, got 3 x 3, dilated 7 x 3",
        ),
    ];
    for (got, expected) in cases {
        assert!(got.contains(expected), "{got}");
    }
    Ok(())
}
