//! f32, f16 and bf16 gradients against the f64 evaluation.

use crate::values;
use candle_core::{DType, Result, Tensor};
use candle_gradcheck::{Failure, GradCheck, Mode};

const LOW: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

fn softmax_like(inputs: &[Tensor]) -> Result<Tensor> {
    let exp = inputs[0].exp()?;
    exp.broadcast_div(&exp.sum_keepdim(1)?)
}

#[test]
fn right_gradients_pass_in_every_precision_and_mode() -> Result<()> {
    for dtype in LOW {
        for mode in [Mode::Dense, Mode::Projection] {
            let x = values(&[3, 5], dtype)?;
            let report = GradCheck::new().mode(mode).check(softmax_like, &[x])?;
            assert!(report.passed(), "{dtype:?} {mode:?}: {report}");
            assert_eq!(report.inputs[0].dtype, dtype);
            assert!(
                report.max_error() > 0.0,
                "{dtype:?} agrees to the last bit with f64"
            );
        }
    }
    Ok(())
}

#[test]
fn a_bug_in_the_low_precision_path_alone_is_caught() -> Result<()> {
    // The gradient of the low-precision branch is a quarter of what it should be.
    let planted = |i: &[Tensor]| {
        let square = i[0].sqr()?;
        if i[0].dtype() == DType::F64 {
            Ok(square)
        } else {
            (&square * 0.25)? + (&square * 0.75)?.detach()
        }
    };
    for dtype in LOW {
        for dims in [vec![3, 5], vec![30, 20]] {
            let report = GradCheck::new().check(planted, &[values(&dims, dtype)?])?;
            let [Failure::Mismatch { wrong, .. }] = report.failures.as_slice() else {
                panic!("{dtype:?} {dims:?}: {report}");
            };
            // All of them, save the few near zero that half precision cannot tell apart.
            let count = dims.iter().product::<usize>();
            assert!(
                *wrong > count * 4 / 5,
                "{dtype:?} {dims:?}: {wrong} of {count}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_bug_in_every_precision_is_caught_in_a_large_low_precision_tensor() -> Result<()> {
    let planted = |i: &[Tensor]| i[0].sqr()? + i[0].detach();
    for dtype in LOW {
        let report = GradCheck::new().check(planted, &[values(&[30, 20], dtype)?])?;
        assert!(!report.passed(), "{dtype:?}");
    }
    Ok(())
}

#[test]
fn a_function_of_fixed_dtype_is_checked_with_a_reference_of_its_own() -> Result<()> {
    let weight = values(&[5, 2], DType::F32)?;
    let wide = weight.to_dtype(DType::F64)?;
    let x = values(&[3, 5], DType::F32)?;
    GradCheck::new()
        .check_with_reference(
            |i| i[0].matmul(&weight)?.tanh(),
            |i| i[0].matmul(&wide)?.tanh(),
            &[x.clone()],
        )?
        .into_result()?;
    let mistaken = GradCheck::new().check_with_reference(
        |i| i[0].matmul(&weight)?.tanh(),
        |i| i[0].matmul(&wide)?.sin(),
        &[x],
    )?;
    assert!(!mistaken.passed());
    Ok(())
}

#[test]
fn the_output_may_be_wider_than_the_input() -> Result<()> {
    // Losses in half precision are returned in f32.
    for dtype in [DType::F16, DType::BF16] {
        let loss = |i: &[Tensor]| {
            let wide = if i[0].dtype() == DType::F64 {
                i[0].clone()
            } else {
                i[0].to_dtype(DType::F32)?
            };
            wide.log_sum_exp(1)
        };
        GradCheck::new()
            .check(loss, &[values(&[4, 7], dtype)?])?
            .into_result()?;
    }
    Ok(())
}

#[test]
fn tolerances_can_be_set_per_dtype() -> Result<()> {
    let x = values(&[3, 5], DType::F16)?;
    let strict = GradCheck::new()
        .tolerance(DType::F16, 1e-9, 0.0)
        .check(softmax_like, &[x.clone()])?;
    assert!(!strict.passed(), "half precision cannot be that exact");
    let other = GradCheck::new()
        .tolerance(DType::F32, 1e-9, 0.0)
        .check(softmax_like, &[x])?;
    assert!(other.passed(), "{other}");
    Ok(())
}
