//! Right gradients of Candle's own functions pass, whatever the sizes.

use crate::values;
use candle_core::{D, DType, Device, Result, Tensor};
use candle_gradcheck::{GradCheck, Mode};

#[test]
fn smooth_functions_of_one_tensor_pass() -> Result<()> {
    type Unary = fn(&Tensor) -> Result<Tensor>;
    let functions: [(&str, Unary); 7] = [
        ("exp", |x| x.exp()),
        ("tanh", |x| x.tanh()),
        ("log", |x| (x.abs()? + 0.5)?.log()),
        ("log_sum_exp", |x| x.log_sum_exp(D::Minus1)),
        ("mean", |x| x.mean_all()),
        ("reshaped", |x| x.flatten_all()?.sqr()),
        ("narrowed", |x| x.narrow(D::Minus1, 0, 1)?.sqr()?.sum_all()),
    ];
    for (name, function) in functions {
        for dims in [vec![1], vec![17], vec![3, 5], vec![2, 3, 4], vec![20, 30]] {
            let x = values(&dims, DType::F64)?;
            let report = GradCheck::new().check(|i| function(&i[0]), &[x])?;
            assert!(report.passed(), "{name} {dims:?}: {report}");
        }
    }
    Ok(())
}

#[test]
fn functions_of_several_tensors_pass() -> Result<()> {
    let (a, b, c) = (
        values(&[3, 5], DType::F64)?,
        values(&[5, 2], DType::F64)?,
        values(&[2], DType::F64)?,
    );
    let affine = |i: &[Tensor]| i[0].matmul(&i[1])?.broadcast_add(&i[2])?.tanh();
    for mode in [Mode::Dense, Mode::Projection] {
        let report = GradCheck::new()
            .mode(mode)
            .check(affine, &[a.clone(), b.clone(), c.clone()])?
            .into_result()?;
        assert_eq!(report.inputs.len(), 3);
    }
    let report = GradCheck::new()
        .differentiable([1])
        .check(affine, &[a, b, c])?
        .into_result()?;
    assert_eq!(report.inputs.len(), 1);
    assert_eq!(report.inputs[0].tensor, 1);
    Ok(())
}

#[test]
fn integer_inputs_are_passed_on_and_not_differentiated() -> Result<()> {
    let x = values(&[4, 3], DType::F64)?;
    let rows = Tensor::new(&[2u32, 0, 2], &Device::Cpu)?;
    // Candle's own index_select takes contiguous tensors only.
    let select = |i: &[Tensor]| {
        i[0].contiguous()?
            .index_select(&i[1].contiguous()?, 0)?
            .sqr()
    };
    let report = GradCheck::new().check(select, &[x, rows])?.into_result()?;
    assert_eq!(report.inputs.len(), 1);
    Ok(())
}

#[test]
fn inputs_may_come_strided() -> Result<()> {
    let x = values(&[5, 3], DType::F64)?.t()?;
    let broadcast = values(&[1, 5], DType::F64)?.broadcast_as((3, 5))?;
    GradCheck::new()
        .check(|i| (&i[0] * &i[1])?.exp(), &[x, broadcast])?
        .into_result()?;
    Ok(())
}

#[test]
fn empty_inputs_pass() -> Result<()> {
    let empty = Tensor::zeros((0, 3), DType::F64, &Device::Cpu)?;
    let report = GradCheck::new()
        .check(|i| i[0].sqr()?.sum_all(), &[empty])?
        .into_result()?;
    assert_eq!(report.inputs[0].checked, 0);
    Ok(())
}

#[test]
fn an_infinite_element_is_left_where_it_is() -> Result<()> {
    let x = Tensor::new(&[0.5f64, f64::NEG_INFINITY, -0.3], &Device::Cpu)?;
    let report = GradCheck::new()
        .strided(false)
        .check(|i| i[0].exp()?.sum_all(), &[x])?
        .into_result()?;
    assert_eq!(
        (report.inputs[0].checked, report.inputs[0].unmovable),
        (2, 1)
    );
    Ok(())
}

#[test]
fn large_and_tiny_losses_are_checked_alike() -> Result<()> {
    let x = values(&[6], DType::F64)?;
    for scale in [1e-9, 1.0, 1e9] {
        let right = |i: &[Tensor]| i[0].sqr()?.sum_all()? * scale;
        GradCheck::new().check(right, &[x.clone()])?.into_result()?;
        let wrong = |i: &[Tensor]| {
            (i[0].sqr()?.sum_all()? * scale)? + (i[0].sum_all()?.detach() * (0.01 * scale))?
        };
        assert!(
            !GradCheck::new().check(wrong, &[x.clone()])?.passed(),
            "scale {scale}"
        );
    }
    Ok(())
}
