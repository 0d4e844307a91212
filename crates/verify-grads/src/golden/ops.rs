//! Runs a golden case: finds the op by its name, computes loss and gradients by every way it has, compares.

use super::compare::Comparison;
use super::file::{GoldenCase, TargetKind};
use super::{cross_entropy, pointwise, skipped};
use crate::case::Outcome;
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_losses::Reduction;
use serde_json::Value;

const F64_TOLERANCE: f64 = 1e-10;
const F32_TOLERANCE: f64 = 1e-5;

/// A loss, ready for its tensors: fused and composed.
pub(super) struct Op {
    pub(super) fused: Way,
    pub(super) composed: Way,
    /// Loss and gradient outside the graph, where the loss has such a form.
    pub(super) value_and_grad: Option<ValueAndGrad>,
}

pub(super) type Way = Box<dyn Fn(&Tensor, &Tensor) -> Result<Tensor>>;
pub(super) type ValueAndGrad = Box<dyn Fn(&Tensor, &Tensor) -> Result<(Tensor, Tensor)>>;
/// Builds the op on a device, its weights in a dtype.
pub(super) type Builder<'a> = Box<dyn Fn(&Device, DType) -> Result<Op> + 'a>;

/// The op of a case by its name, or why there is none.
pub(super) fn find(case: &GoldenCase) -> std::result::Result<Builder<'_>, String> {
    match case.op.as_str() {
        "cross_entropy" => cross_entropy::build(case),
        "nll" => cross_entropy::build_nll(case),
        _ => pointwise::build(case),
    }
}

/// The reduction of that name; none for what is not a reduction of every loss.
pub(super) fn reduction(name: &str) -> std::result::Result<Reduction, String> {
    match name {
        "mean" => Ok(Reduction::Mean),
        "sum" => Ok(Reduction::Sum),
        "none" => Ok(Reduction::None),
        other => Err(format!("this op has no reduction \"{other}\"")),
    }
}

/// A loss with the gradients of input and target.
struct Computed {
    loss: Vec<f64>,
    loss_shape: Vec<usize>,
    grad_input: Vec<f64>,
    grad_target: Option<Vec<f64>>,
}

/// All ways in f64 against the recorded numbers.
pub(super) fn against_pytorch(case: &GoldenCase, device: &Device) -> Result<Outcome> {
    let builder = match find(case) {
        Ok(builder) => builder,
        Err(reason) => return Ok(skipped(reason)),
    };
    let op = builder(device, DType::F64)?;
    let mut comparison = Comparison::new(F64_TOLERANCE);
    for (name, way) in [("fused", &op.fused), ("composed", &op.composed)] {
        let computed = compute(case, way, DType::F64, device)?;
        comparison.shapes(
            &format!("the {name} loss"),
            &computed.loss_shape,
            &case.loss_shape,
        );
        comparison.slices(&format!("the {name} loss"), &computed.loss, &case.loss);
        comparison.slices(
            &format!("the {name} gradient"),
            &computed.grad_input,
            &case.grad_input,
        );
        if let (Some(found), Some(expected)) = (&computed.grad_target, &case.grad_target) {
            comparison.slices(
                &format!("the {name} gradient of the target"),
                found,
                expected,
            );
        }
    }
    // Its gradient is that of the sum, so it compares with an upstream gradient of one number.
    if let (Some(value_and_grad), [upstream]) = (&op.value_and_grad, case.grad_output.as_slice()) {
        let (input, target) = tensors(case, DType::F64, device)?;
        let (loss, gradient) = value_and_grad(&input, &target)?;
        comparison.slices("the loss of value_and_grad", &flat(&loss)?, &case.loss);
        let scaled: Vec<f64> = flat(&gradient)?.iter().map(|g| g * upstream).collect();
        comparison.slices("the gradient of value_and_grad", &scaled, &case.grad_input);
    }
    Ok(comparison.outcome())
}

/// The fused form in f32 against the composed one in f64, at inputs and weights rounded to f32.
pub(super) fn in_single_precision(case: &GoldenCase, device: &Device) -> Result<Outcome> {
    let case = rounded(case);
    let builder = match find(&case) {
        Ok(builder) => builder,
        Err(reason) => return Ok(skipped(reason)),
    };
    let found = compute(
        &case,
        &builder(device, DType::F32)?.fused,
        DType::F32,
        device,
    )?;
    let expected = compute(
        &case,
        &builder(device, DType::F64)?.composed,
        DType::F64,
        device,
    )?;
    let mut comparison = Comparison::new(F32_TOLERANCE);
    comparison.slices("the loss", &found.loss, &expected.loss);
    comparison.slices("the gradient", &found.grad_input, &expected.grad_input);
    Ok(comparison.outcome())
}

/// The case with every number that will be rounded to f32 rounded to f32.
fn rounded(case: &GoldenCase) -> GoldenCase {
    let round = |numbers: &mut Vec<f64>| numbers.iter_mut().for_each(|x| *x = f64::from(*x as f32));
    let mut case = case.clone();
    round(&mut case.input);
    if case.target_kind != TargetKind::Indices {
        round(&mut case.target);
    }
    case.weight.iter_mut().for_each(round);
    for list in case.params.values_mut().filter_map(Value::as_array_mut) {
        list.iter_mut().for_each(|number| {
            if let Some(x) = number.as_f64() {
                *number = f64::from(x as f32).into();
            }
        });
    }
    case
}

fn tensors(case: &GoldenCase, dtype: DType, device: &Device) -> Result<(Tensor, Tensor)> {
    let input =
        Tensor::from_slice(&case.input, case.input_shape.as_slice(), device)?.to_dtype(dtype)?;
    let target = match case.target_kind {
        TargetKind::Indices => {
            let indices: Vec<i64> = case.target.iter().map(|&t| t as i64).collect();
            Tensor::from_vec(indices, case.target_shape.as_slice(), device)?
        }
        _ => Tensor::from_slice(&case.target, case.target_shape.as_slice(), device)?
            .to_dtype(dtype)?,
    };
    Ok((input, target))
}

fn compute(case: &GoldenCase, way: &Way, dtype: DType, device: &Device) -> Result<Computed> {
    let (input, target) = tensors(case, dtype, device)?;
    let input = Var::from_tensor(&input)?;
    let tracked = case
        .grad_target
        .is_some()
        .then(|| Var::from_tensor(&target))
        .transpose()?;
    let target = tracked.as_ref().map_or(&target, |var| var.as_tensor());
    let loss = way(input.as_tensor(), target)?;
    let upstream = Tensor::from_slice(&case.grad_output, case.loss_shape.as_slice(), device)?;
    let upstream = upstream
        .to_dtype(loss.dtype())?
        .broadcast_as(loss.shape())?;
    let gradients = (&loss * upstream)?.sum_all()?.backward()?;
    // A loss that does not depend on its input, like one whose rows are all ignored, may leave no gradient.
    let of = |var: &Var| {
        gradients
            .get(var)
            .map_or_else(|| Ok(vec![0.0; var.elem_count()]), flat)
    };
    Ok(Computed {
        loss: flat(&loss)?,
        loss_shape: loss.dims().to_vec(),
        grad_input: of(&input)?,
        grad_target: tracked.as_ref().map(of).transpose()?,
    })
}

fn flat(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}
