//! Claims about max pooling, against the composed form, candle's forward and central differences.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::{composed, max_pool2d};
use crate::test_support::{
    assert_gradients, awkward_layout, gradients, max_difference, random, values,
};

type Pair = (usize, usize);

const CASES: [(&[usize], Pair, Pair); 7] = [
    (&[2, 3, 4, 6], (2, 2), (2, 2)),
    (&[1, 1, 1, 1], (1, 1), (1, 1)),
    (&[1, 2, 7, 5], (3, 2), (1, 2)),
    (&[3, 1, 5, 17], (2, 3), (3, 1)),
    (&[1, 17, 9, 4], (3, 3), (2, 2)),
    (&[2, 1, 6, 6], (1, 1), (3, 2)),
    (&[1, 1, 17, 20], (17, 18), (1, 1)),
];

#[test]
fn forward_agrees_with_candle_where_kernel_is_stride() -> Result<()> {
    for (shape, kernel) in [
        (&[2, 3, 4, 6], (2, 2)),
        (&[1, 2, 9, 7], (3, 2)),
        (&[4, 1, 5, 5], (1, 5)),
    ] {
        let x = random(1, shape, DType::F32)?;
        let expected = x.max_pool2d(kernel)?;
        assert_eq!(
            max_difference(&max_pool2d(&x, kernel, kernel)?, &expected)?,
            0.0
        );
    }
    Ok(())
}

#[test]
fn values_and_gradients_agree_with_the_composed_form_in_every_dtype_and_layout() -> Result<()> {
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        for (seed, (shape, kernel, stride)) in CASES.into_iter().enumerate() {
            let plain = random(seed as u64, shape, dtype)?;
            // Few distinct values, so that windows have equal maxima.
            let tied = (&plain * 3.0)?.round()?;
            for x in [plain, tied] {
                for x in [x.clone(), awkward_layout(&x)?] {
                    let (y, grad) = gradients(
                        |t| max_pool2d(&t[0], kernel, stride),
                        std::slice::from_ref(&x),
                        5,
                    )?;
                    let (y2, grad2) =
                        gradients(|t| composed::max_pool2d(&t[0], kernel, stride), &[x], 5)?;
                    assert_eq!(max_difference(&y, &y2)?, 0.0);
                    // index_add sums halves in half precision, we sum them in f32.
                    let tolerance = match dtype {
                        DType::F16 => 4e-3,
                        DType::BF16 => 4e-2,
                        _ => 1e-5,
                    };
                    let difference = max_difference(&grad[0], &grad2[0])?;
                    assert!(
                        difference <= tolerance,
                        "{shape:?} {kernel:?} {stride:?}: {difference}"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn gradients_agree_with_central_differences() -> Result<()> {
    for (seed, (shape, kernel, stride)) in CASES.into_iter().enumerate() {
        let x = random(seed as u64 + 20, shape, DType::F64)?;
        assert_gradients(|t| max_pool2d(&t[0], kernel, stride), &[x], 1e-8)?;
    }
    Ok(())
}

#[test]
fn a_strided_view_inside_the_graph_gets_its_gradient() -> Result<()> {
    let x = random(3, &[2, 3, 6, 5], DType::F64)?;
    assert_gradients(
        |t| max_pool2d(&t[0].transpose(2, 3)?.narrow(2, 1, 4)?, (2, 3), (1, 2)),
        &[x],
        1e-8,
    )
}

#[test]
fn the_first_of_equal_maxima_takes_the_whole_upstream_gradient() -> Result<()> {
    let x = Var::new(
        &[[[[7f32, 7.], [7., 7.]]], [[[1., 5.], [5., 5.]]]],
        &Device::Cpu,
    )?;
    let y = max_pool2d(&x, (2, 2), (2, 2))?;
    let grads = (y * 3.0)?.sum_all()?.backward()?;
    let grad = values(grads.get(&x).unwrap())?;
    assert_eq!(grad, [3., 0., 0., 0., 0., 3., 0., 0.]);
    Ok(())
}

#[test]
fn the_last_nan_wins_and_minus_infinity_has_a_winner() -> Result<()> {
    let (nan, low) = (f32::NAN, f32::NEG_INFINITY);
    let x = Var::new(
        &[[[[9f32, nan, low, low], [nan, 1., low, low]]]],
        &Device::Cpu,
    )?;
    let y = max_pool2d(&x, (2, 2), (2, 2))?;
    let out = values(&y)?;
    assert!(out[0].is_nan() && out[1] == f64::NEG_INFINITY);
    let grads = y.backward()?;
    let grad = values(grads.get(&x).unwrap())?;
    assert_eq!(grad, [0., 0., 1., 0., 1., 0., 0., 0.]);
    Ok(())
}

#[test]
fn an_empty_batch_gives_an_empty_result_and_an_empty_gradient() -> Result<()> {
    let x = Var::from_tensor(&Tensor::zeros((0, 3, 4, 4), DType::F32, &Device::Cpu)?)?;
    let y = max_pool2d(&x, (2, 2), (2, 2))?;
    assert_eq!(y.dims(), [0, 3, 2, 2]);
    let grads = y.backward()?;
    assert_eq!(grads.get(&x).unwrap().dims(), [0, 3, 4, 4]);
    Ok(())
}

#[test]
fn large_inputs_are_pooled_as_small_ones() -> Result<()> {
    let x = random(8, &[16, 8, 32, 31], DType::F32)?;
    let (y, grad) = gradients(
        |t| max_pool2d(&t[0], (3, 3), (2, 1)),
        std::slice::from_ref(&x),
        5,
    )?;
    let (y2, grad2) = gradients(|t| composed::max_pool2d(&t[0], (3, 3), (2, 1)), &[x], 5)?;
    assert_eq!(max_difference(&y, &y2)?, 0.0);
    assert!(max_difference(&grad[0], &grad2[0])? < 1e-5);
    Ok(())
}

#[test]
fn bad_arguments_are_named() -> Result<()> {
    let message = |shape: &[usize], dtype, kernel, stride| -> Result<String> {
        let x = Tensor::zeros(shape, dtype, &Device::Cpu)?;
        Ok(max_pool2d(&x, kernel, stride).unwrap_err().to_string())
    };
    let cases = [
        (
            message(&[3, 4, 4], DType::F32, (2, 2), (2, 2))?,
            "max_pool2d: `x` must have 4 dimensions (N, C, H, W), got shape [3, 4, 4]; reshape it",
        ),
        (
            message(&[1, 1, 4, 4], DType::U8, (2, 2), (2, 2))?,
            "max_pool2d: `x` must be f32, f64, f16, bf16, got U8; convert it with `to_dtype`",
        ),
        (
            message(&[1, 1, 4, 4], DType::F32, (0, 2), (2, 2))?,
            "max_pool2d: `kernel` must be at least 1 in both directions, got (0, 2)",
        ),
        (
            message(&[1, 1, 4, 4], DType::F32, (2, 2), (2, 0))?,
            "max_pool2d: `stride` must be at least 1 in both directions, got (2, 0)",
        ),
        (
            message(&[1, 1, 4, 3], DType::F32, (4, 4), (1, 1))?,
            "max_pool2d: `kernel` must be no larger than the 4 x 3 image that is pooled, got (4, 4)",
        ),
    ];
    for (got, expected) in cases {
        assert!(got.contains(expected), "{got}");
    }
    Ok(())
}
