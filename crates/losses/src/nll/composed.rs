//! The loss out of tensor ops: the oracle of the fused form, and what runs where that has no kernels.

use super::counted::Counted;
use crate::pointwise::composed::widen;
use candle_core::{Result, Tensor};

pub(super) fn nll(counted: &Counted, log_probabilities: &Tensor) -> Result<Tensor> {
    let plan = &counted.plan;
    let x = widen(log_probabilities)?;
    let device = x.device();
    let rows = |values: Vec<f64>| Tensor::from_vec(values, &plan.rows, device)?.to_dtype(x.dtype());
    let factors = rows(
        counted
            .classes
            .iter()
            .map(|class| class.map_or(0.0, |c| -counted.weight(c)))
            .collect(),
    )?;
    if plan.rows.elem_count() == 0 {
        // candle's ops return an empty argument as it is: only a reshape of it keeps the way back to it.
        let loss = match plan.class_axis {
            1 => x.narrow(1, 0, x.dim(1)?.min(1))?.reshape(&plan.rows)?,
            _ => x,
        };
        return finish(counted, loss);
    }
    // Ignored rows read class 0, and what they read is not used, not even as a factor of 0: it may be NaN.
    let counts: Vec<u8> = counted
        .classes
        .iter()
        .map(|class| u8::from(class.is_some()))
        .collect();
    let counts = Tensor::from_vec(counts, &plan.rows, device)?;
    let indices: Vec<u32> = counted
        .classes
        .iter()
        .map(|class| class.unwrap_or(0) as u32)
        .collect();
    let indices = Tensor::from_vec(indices, &plan.rows, device)?.unsqueeze(plan.class_axis)?;
    let picked = x
        .contiguous()?
        .gather(&indices, plan.class_axis)?
        .squeeze(plan.class_axis)?;
    let picked = counts.where_cond(&picked, &picked.zeros_like()?)?;
    finish(counted, picked.mul(&factors)?)
}

fn finish(counted: &Counted, loss: Tensor) -> Result<Tensor> {
    let plan = &counted.plan;
    if !plan.reduced {
        return Ok(loss);
    }
    if counted.divisor == 0.0 {
        // All factors are 0, or cancel: keep the way back to the input, with gradient 0.
        let zero = loss.zeros_like()?;
        let zero = if loss.elem_count() == 0 {
            loss
        } else {
            loss.mul(&zero)?
        };
        return zero.sum_all()?.affine(1.0, plan.on_empty_value());
    }
    loss.sum_all()?.affine(1.0 / counted.divisor, 0.0)
}
