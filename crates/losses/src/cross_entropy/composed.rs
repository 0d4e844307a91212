//! Cross entropy in Candle's tensor operations: autograd derives the gradient, and the formula reads top to bottom.

use candle_core::{D, DType, Result, Tensor};

use super::error::TargetOutOfRange;
use super::plan::{Plan, TargetKind};
use crate::{EmptyPolicy, Reduction};

/// The quantities of the formula, a row for each loss; every tensor carries its graph.
pub(super) struct Terms {
    /// Transformed logits x' (rows, C).
    pub(super) x: Tensor,
    /// Log probabilities l (rows, C).
    pub(super) log_probabilities: Tensor,
    /// log sum exp x' (rows, 1).
    pub(super) lse: Tensor,
    /// The coefficient of -l_c (rows, C): class weights, smoothing and targets together.
    pub(super) coefficients: Tensor,
    /// 1 where a row counts (rows, 1), u8.
    pub(super) counts: Tensor,
    /// 1 where a target is neither a class nor ignored (rows, 1), u8; none where that is an error.
    invalid: Option<Tensor>,
    /// The weight of each row in the mean (rows, 1); 0 where it does not count.
    row_weights: Tensor,
    /// 1 at the target's class (rows, C); none for probabilities.
    pub(super) one_hot: Option<Tensor>,
}

/// Which rows' logits are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowsRead {
    /// Those that count in the loss; the others are taken as 0.
    Counted,
    /// All, for lse.
    All,
}

/// (N, C, d1, ...) to (rows, C).
pub(super) fn to_rows(plan: &Plan, x: &Tensor) -> Result<Tensor> {
    let (rows, classes) = (plan.geometry.rows(), plan.geometry.classes);
    if x.rank() <= 2 {
        return x.reshape((rows, classes));
    }
    let order: Vec<usize> = std::iter::once(0).chain(2..x.rank()).chain([1]).collect();
    x.permute(order)?.reshape((rows, classes))
}

/// (rows, C) to the shape of the logits, the other way around.
pub(super) fn from_rows(x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if shape.len() <= 2 {
        return x.reshape(shape);
    }
    let mut permuted = vec![shape[0]];
    permuted.extend(&shape[2..]);
    permuted.push(shape[1]);
    let order: Vec<usize> = [0, shape.len() - 1]
        .into_iter()
        .chain(1..shape.len() - 1)
        .collect();
    x.reshape(permuted)?.permute(order)?.contiguous()
}

/// `x` where the mask (u8, broadcast to the shape of `x`) holds, else `value`.
pub(super) fn keep(mask: &Tensor, x: &Tensor, value: f64) -> Result<Tensor> {
    if x.rank() == 0 {
        // On CUDA, candle's `where_cond` uploads the dimensions, and the driver refuses memory for none.
        return keep(&mask.reshape(1)?, &x.reshape(1)?, value)?.reshape(());
    }
    let other = Tensor::full(value as f32, (), x.device())?
        .to_dtype(x.dtype())?
        .broadcast_as(x.shape())?;
    mask.broadcast_as(x.shape())?.where_cond(x, &other)
}

impl Terms {
    pub(super) fn new(
        plan: &Plan,
        logits: &Tensor,
        target: &Tensor,
        rows_read: RowsRead,
    ) -> Result<Self> {
        let o = &plan.options;
        let (rows, classes) = (plan.geometry.rows(), plan.geometry.classes);
        let device = logits.device();
        let weight = match &o.weight {
            Some(weight) => weight.to_dtype(plan.compute)?.reshape((1, classes))?,
            None => Tensor::ones((1, classes), plan.compute, device)?,
        };
        let mut x = to_rows(plan, logits)?.to_dtype(plan.compute)?;

        let (counts, invalid, one_hot) = match plan.kind {
            TargetKind::Probabilities => (Tensor::ones((rows, 1), DType::U8, device)?, None, None),
            TargetKind::Indices => {
                let targets = target.reshape((rows, 1))?.to_dtype(DType::I64)?;
                let (counts, invalid) = classify(plan, &targets)?;
                let class = Tensor::arange(0i64, classes as i64, device)?.reshape((1, classes))?;
                let one_hot = targets.broadcast_eq(&class)?.to_dtype(plan.compute)?;
                (counts, invalid, Some(one_hot))
            }
        };
        if rows_read == RowsRead::Counted {
            // What a row that does not count holds must not reach the arithmetic: 0 * NaN is NaN.
            x = keep(&counts, &x, 0.0)?;
        }
        if o.logit_scale != 1.0 {
            x = (x * o.logit_scale)?;
        }
        if let Some(cap) = o.softcap {
            x = ((x / cap)?.tanh()? * cap)?;
        }

        let max = x.max_keepdim(D::Minus1)?.detach();
        let shifted = x.broadcast_sub(&max)?;
        let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
        let lse = (&max + &log_sum)?;
        let log_probabilities = shifted.broadcast_sub(&log_sum)?;

        let hard = 1.0 - o.label_smoothing;
        let uniform = o.label_smoothing / classes as f64;
        let distribution = match &one_hot {
            Some(one_hot) => (one_hot * hard)? + uniform,
            None => (to_rows(plan, target)?.to_dtype(plan.compute)? * hard)? + uniform,
        }?;
        let coefficients = keep(&counts, &distribution.broadcast_mul(&weight)?, 0.0)?;
        let row_weights = match &one_hot {
            Some(one_hot) => one_hot.broadcast_mul(&weight)?.sum_keepdim(D::Minus1)?,
            None => Tensor::ones((rows, 1), plan.compute, device)?,
        };
        let row_weights = keep(&counts, &row_weights, 0.0)?;
        Ok(Self {
            x,
            log_probabilities,
            lse,
            coefficients,
            counts,
            invalid,
            row_weights,
            one_hot,
        })
    }

    /// One loss a row (rows, 1).
    fn losses(&self, plan: &Plan) -> Result<Tensor> {
        // A coefficient of 0 contributes 0, also where l is -inf.
        let matters = self.coefficients.ne(0.0)?;
        let finite = self.log_probabilities.ne(f64::NEG_INFINITY)?;
        let used = keep(&(matters + finite)?.ne(0u8)?, &self.log_probabilities, 0.0)?;
        let mut losses = (&self.coefficients * &used)?
            .sum_keepdim(D::Minus1)?
            .neg()?;
        if plan.options.z_loss != 0.0 {
            losses = (losses + (self.lse.sqr()? * plan.options.z_loss)?)?;
        }
        losses = keep(&self.counts, &losses, 0.0)?;
        match &self.invalid {
            Some(invalid) => keep(&invalid.eq(0u8)?, &losses, f64::NAN),
            None => Ok(losses),
        }
    }

    /// What the sum of the losses is divided by, a scalar tensor; none where it is not divided.
    pub(super) fn divisor(&self, plan: &Plan) -> Result<Option<Tensor>> {
        let o = &plan.options;
        match (o.reduction, o.num_items) {
            (Reduction::None, _) | (Reduction::Sum, None) => Ok(None),
            (_, Some(items)) => Ok(Some(
                Tensor::new(items, self.x.device())?.to_dtype(self.x.dtype())?,
            )),
            (Reduction::Mean, None) => Ok(Some(self.row_weights.sum_all()?)),
        }
    }
}

/// Which rows count, and which are invalid where that is not an error.
fn classify(plan: &Plan, targets: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
    let o = &plan.options;
    let classes = plan.geometry.classes as i64;
    let valid = (targets.ge(0i64)? * targets.lt(classes)?)?;
    let Some(ignore) = o.ignore_index else {
        return checked(plan, targets, valid.clone(), valid.eq(0u8)?);
    };
    let kept = targets.ne(ignore)?;
    checked(plan, targets, (&valid * &kept)?, (valid.eq(0u8)? * kept)?)
}

fn checked(
    plan: &Plan,
    targets: &Tensor,
    counts: Tensor,
    invalid: Tensor,
) -> Result<(Tensor, Option<Tensor>)> {
    if !(targets.device().is_cpu() || plan.options.validate_targets) {
        return Ok((counts, Some(invalid)));
    }
    let flags = invalid.flatten_all()?.to_vec1::<u8>()?;
    if let Some(row) = flags.iter().position(|&flag| flag != 0) {
        let value = targets.flatten_all()?.get(row)?.to_scalar::<i64>()?;
        return Err(TargetOutOfRange {
            row,
            value,
            classes: plan.geometry.classes,
        }
        .into());
    }
    Ok((counts, None))
}

/// The mean over nothing, as a tensor of the loss's type.
pub(super) fn of_nothing(policy: EmptyPolicy) -> f64 {
    match policy {
        EmptyPolicy::Nan => f64::NAN,
        EmptyPolicy::Zero => 0.0,
    }
}

pub(super) fn forward(plan: &Plan, logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    if plan.geometry.rows() == 0 {
        return empty(plan, logits);
    }
    let terms = Terms::new(plan, logits, target, RowsRead::Counted)?;
    let losses = terms.losses(plan)?;
    if plan.options.reduction == Reduction::None {
        return losses.reshape(plan.loss_shape());
    }
    let sum = losses.sum_all()?;
    let Some(divisor) = terms.divisor(plan)? else {
        return Ok(sum);
    };
    // Dividing by 0 would make the gradient NaN as well; both branches of a choice are differentiated.
    let something = divisor.ne(0.0)?;
    let mean = (sum / keep(&something, &divisor, 1.0)?)?;
    keep(&something, &mean, of_nothing(plan.options.on_empty))
}

/// The loss of no rows, still connected to the logits so that their gradient is an empty tensor.
fn empty(plan: &Plan, logits: &Tensor) -> Result<Tensor> {
    let logits = logits.to_dtype(plan.compute)?;
    let o = &plan.options;
    match (o.reduction, o.num_items) {
        (Reduction::None, _) => {
            let rows = to_rows(plan, &logits)?;
            rows.narrow(1, 0, 1)?.reshape(plan.loss_shape())
        }
        (Reduction::Sum, _) | (Reduction::Mean, Some(_)) => logits.sum_all(),
        (Reduction::Mean, None) => logits.sum_all()?.affine(1.0, of_nothing(o.on_empty)),
    }
}
