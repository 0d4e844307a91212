//! Golden cases of cross entropy and of negative log-likelihood.

use super::file::{GoldenCase, TargetKind};
use super::ops::{Builder, Op, reduction};
use candle_core::{DType, Device, Result, Tensor};
use candle_losses::{CrossEntropy, Nll};

pub(super) fn build(case: &GoldenCase) -> std::result::Result<Builder<'_>, String> {
    let reduction = reduction(&case.reduction)?;
    unknown_params(case)?;
    Ok(Box::new(move |device, dtype| {
        let mut loss = CrossEntropy::new()
            .reduction(reduction)
            .label_smoothing(case.label_smoothing);
        if let Some(weight) = weight(case, device, dtype)? {
            loss = loss.weight(weight);
        }
        if let Some(index) = case.ignore_index {
            loss = loss.ignore_index(index);
        }
        let (a, b, c) = (loss.clone(), loss.clone(), loss);
        Ok(if case.target_kind == TargetKind::Probabilities {
            Op {
                fused: Box::new(move |x, t| a.forward_probabilities(x, t)),
                composed: Box::new(move |x, t| b.composed_probabilities(x, t)),
                value_and_grad: Some(Box::new(move |x, t| c.value_and_grad_probabilities(x, t))),
            }
        } else {
            Op {
                fused: Box::new(move |x, y| a.forward(x, y)),
                composed: Box::new(move |x, y| b.composed(x, y)),
                value_and_grad: Some(Box::new(move |x, y| c.value_and_grad(x, y))),
            }
        })
    }))
}

pub(super) fn build_nll(case: &GoldenCase) -> std::result::Result<Builder<'_>, String> {
    let reduction = reduction(&case.reduction)?;
    unknown_params(case)?;
    Ok(Box::new(move |device, dtype| {
        let mut loss = Nll::new().reduction(reduction);
        if let Some(weight) = weight(case, device, dtype)? {
            loss = loss.weight(weight);
        }
        if let Some(index) = case.ignore_index {
            loss = loss.ignore_index(index);
        }
        let (a, b) = (loss.clone(), loss);
        Ok(Op {
            fused: Box::new(move |x, y| a.forward(x, y)),
            composed: Box::new(move |x, y| b.composed(x, y)),
            value_and_grad: None,
        })
    }))
}

fn weight(case: &GoldenCase, device: &Device, dtype: DType) -> Result<Option<Tensor>> {
    let tensor = |weight: &Vec<f64>| Tensor::new(weight.as_slice(), device)?.to_dtype(dtype);
    case.weight.as_ref().map(tensor).transpose()
}

fn unknown_params(case: &GoldenCase) -> std::result::Result<(), String> {
    match case.params.keys().next() {
        Some(key) => Err(format!("{} has no option \"{key}\" here", case.op)),
        None => Ok(()),
    }
}
