//! Kinks are reported, counted and not called bugs; a bug next to a kink still is one.

use crate::values;
use candle_core::{DType, Device, Result, Tensor};
use candle_gradcheck::{Failure, GradCheck, Mode};

fn with_zeros() -> Result<Tensor> {
    Tensor::new(&[0.0f64, 1.5, -0.7, 0.0, 0.3, -2.0, 0.9, 1.1], &Device::Cpu)
}

#[test]
fn relu_and_abs_at_zero_are_kinks_and_not_bugs() -> Result<()> {
    for function in [Tensor::relu, Tensor::abs] {
        for mode in [Mode::Dense, Mode::Projection] {
            let report = GradCheck::new()
                .mode(mode)
                .check(|i| function(&i[0]), &[with_zeros()?])?
                .into_result()?;
            assert_eq!(report.inputs[0].kinks, 2, "{mode:?}: {report}");
        }
    }
    Ok(())
}

#[test]
fn ties_of_a_maximum_are_kinks_and_not_bugs() -> Result<()> {
    let x = Tensor::new(&[[1.0f64, 3.0, 3.0], [2.0, -1.0, 0.5]], &Device::Cpu)?;
    let report = GradCheck::new()
        .check(|i| i[0].max(1), &[x.clone()])?
        .into_result()?;
    assert_eq!(report.inputs[0].kinks, 2, "{report}");
    let other = Tensor::new(&[[1.0f64, 0.0, 0.0], [0.0, 0.0, 0.0]], &Device::Cpu)?;
    // Candle halves the gradient of such a tie, which is just what central differences say.
    GradCheck::new()
        .check(|i| i[0].maximum(&i[1]), &[x, other])?
        .into_result()?;
    Ok(())
}

#[test]
fn a_kink_within_the_step_disappears_with_the_step() -> Result<()> {
    let x = Tensor::new(&[1e-6f64, -2e-6, 0.5], &Device::Cpu)?;
    let report = GradCheck::new()
        .check(|i| i[0].relu(), &[x])?
        .into_result()?;
    assert_eq!(report.inputs[0].kinks, 0, "{report}");
    Ok(())
}

#[test]
fn a_wrong_gradient_is_a_bug_although_there_are_kinks() -> Result<()> {
    // The forward pass is 4 relu(x), the gradient that of relu(x).
    let wrong = |i: &[Tensor]| i[0].relu()? + (i[0].relu()? * 3.0)?.detach();
    for mode in [Mode::Dense, Mode::Projection] {
        let report = GradCheck::new().mode(mode).check(wrong, &[with_zeros()?])?;
        assert!(
            report
                .failures
                .iter()
                .any(|f| matches!(f, Failure::Mismatch { .. })),
            "{mode:?}: {report}"
        );
    }
    Ok(())
}

#[test]
fn a_gradient_outside_the_one_sided_derivatives_is_a_bug_even_at_a_kink() -> Result<()> {
    // At 0 the one-sided derivatives of relu are 0 and 1; this one claims 2 there.
    let wrong = |i: &[Tensor]| {
        let at_zero = i[0].eq(&i[0].zeros_like()?)?.to_dtype(i[0].dtype())?;
        let nothing = ((&i[0] - i[0].detach())? * at_zero)?;
        i[0].relu()? + nothing
    };
    let report = GradCheck::new().check(wrong, &[with_zeros()?])?;
    let [
        Failure::Mismatch {
            index, analytic, ..
        },
        ..,
    ] = report.failures.as_slice()
    else {
        panic!("{report}");
    };
    assert!(index == &[0] || index == &[3]);
    assert!(analytic.abs() >= 1.0);
    Ok(())
}

#[test]
fn too_many_kinks_fail_the_check() -> Result<()> {
    let zeros = Tensor::zeros(20, DType::F64, &Device::Cpu)?;
    let report = GradCheck::new().check(|i| i[0].relu(), &[zeros.clone()])?;
    assert!(
        matches!(
            report.failures.as_slice(),
            [Failure::TooManyKinks {
                kinks: 20,
                checked: 20,
                ..
            }]
        ),
        "{report}"
    );
    GradCheck::new()
        .max_kinks(1.0)
        .check(|i| i[0].relu(), &[zeros])?
        .into_result()?;
    let many = Tensor::zeros(2_000, DType::F64, &Device::Cpu)?;
    let report = GradCheck::new().check(|i| i[0].relu(), &[many])?;
    assert!(
        matches!(report.failures.as_slice(), [Failure::TooManyKinks { .. }]),
        "{report}"
    );
    Ok(())
}

#[test]
fn a_few_kinks_among_ten_thousand_do_not_disturb_a_projection() -> Result<()> {
    let mut x = values(&[10_000], DType::F64)?.to_vec1::<f64>()?;
    x[17] = 0.0;
    x[5_000] = 0.0;
    x[9_998] = 1e-6;
    let x = Tensor::new(x, &Device::Cpu)?;
    let report = GradCheck::new()
        .check(|i| i[0].relu()?.sqrt(), &[(x.abs()? + 0.1)?])?
        .into_result()?;
    assert_eq!(report.inputs[0].kinks, 0, "{report}");
    let report = GradCheck::new()
        .check(|i| i[0].relu(), &[x])?
        .into_result()?;
    assert_eq!(report.inputs[0].kinks, 2, "{report}");
    Ok(())
}
