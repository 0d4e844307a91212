//! A check that cannot be carried out says why.

use crate::values;
use candle_core::{DType, Device, Result, Tensor};
use candle_gradcheck::GradCheck;

fn error_of(check: &GradCheck, inputs: &[Tensor]) -> String {
    check
        .check(|i| i[0].sqr(), inputs)
        .expect_err("the check cannot be carried out")
        .to_string()
}

#[test]
fn errors_name_the_argument_and_what_was_expected() -> Result<()> {
    let x = values(&[3], DType::F64)?;
    let integers = Tensor::new(&[1u32, 2], &Device::Cpu)?;
    let cases = [
        (
            error_of(&GradCheck::new(), &[integers.clone()]),
            "none of the 1 input tensors is differentiable",
        ),
        (
            error_of(&GradCheck::new().differentiable([3]), &[x.clone()]),
            "input 3 does not exist",
        ),
        (
            error_of(
                &GradCheck::new().differentiable([1]),
                &[x.clone(), integers],
            ),
            "input 1 has dtype u32",
        ),
        (
            error_of(&GradCheck::new().step(0.0), &[x.clone()]),
            "step: 0 is out of range",
        ),
        (
            error_of(&GradCheck::new().step(f64::NAN), &[x.clone()]),
            "step: NaN is out of range",
        ),
        (
            error_of(&GradCheck::new().directions(0), &[x.clone()]),
            "directions: 0 is out of range",
        ),
        (
            error_of(&GradCheck::new().max_kinks(2.0), &[x.clone()]),
            "max_kinks: 2 is out of range",
        ),
        (
            error_of(&GradCheck::new().tolerance(DType::F32, -1.0, 0.0), &[x]),
            "rtol: -1 is out of range",
        ),
    ];
    for (error, expected) in cases {
        assert!(error.contains(expected), "{expected:?} is not in {error:?}");
    }
    Ok(())
}

#[test]
fn an_integer_output_is_refused() -> Result<()> {
    let result = GradCheck::new().check(|i| i[0].argmax(0), &[values(&[3], DType::F64)?]);
    let error = result.expect_err("integers have no gradient").to_string();
    assert!(error.contains("the output has dtype u32"), "{error}");
    Ok(())
}

#[test]
fn an_error_of_the_function_is_handed_on() -> Result<()> {
    let result = GradCheck::new().check(
        |_| candle_core::bail!("out of cheese"),
        &[values(&[3], DType::F64)?],
    );
    assert!(
        result
            .expect_err("the function fails")
            .to_string()
            .contains("out of cheese")
    );
    Ok(())
}
