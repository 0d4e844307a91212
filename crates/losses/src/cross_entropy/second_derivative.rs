//! Backward of the gradient, in tensor operations: rare, so clear rather than fast, and differentiable any number of
//! times.
//!
//! With x' the transformed logits of a row, f = dx'/dx, p = softmax(x'), q the coefficients of the loss, g, h and u the
//! upstream gradients of loss, lse and target's log-probability (g already divided), and y the target's class:
//!
//! - the gradient is G_c = f_c (A p_c - g q_c + u 1[c = y]) with A = g (sum q + 2 k lse) + h - u;
//! - against a direction v, with v' = v f and S = sum v'_c p_c, the derivative of sum v_c G_c is
//!   v_j f'_j (A p_j - g q_j + u 1[j = y]) + f_j p_j (A (v'_j - S) + 2 k g S) with respect to x_j,
//!   (sum q + 2 k lse) S - sum v'_c q_c with respect to g, S with respect to h, v'_y - S with respect to u, and
//!   g (1 - e) w_c (S - v'_c) with respect to a probability t_c.

use candle_core::{D, Result, Tensor};

use super::composed::{RowsRead, Terms, from_rows, keep, to_rows};
use super::fused::CrossEntropyOp;
use super::plan::{Plan, TargetKind};
use crate::Reduction;

/// The upstream gradients of each row, (rows, 1), in the compute type.
struct Upstream {
    /// Divided; 0 in rows that do not count.
    loss: Tensor,
    /// None where forward had no outputs.
    others: Option<(Tensor, Tensor)>,
}

fn upstream_rows(op: &CrossEntropyOp, terms: &Terms, upstream: &Tensor) -> Result<Upstream> {
    let plan = &op.plan;
    let rows = plan.geometry.rows();
    let per_row = plan.options.reduction == Reduction::None;
    let losses = if per_row { rows } else { 1 };
    let flat = upstream.flatten_all()?;
    let loss = flat
        .narrow(0, 0, losses)?
        .reshape((losses, 1))?
        .broadcast_as((rows, 1))?;
    let divisor = op.saved()?.divisor.value()?;
    let loss = if divisor == 0.0 {
        loss.zeros_like()?
    } else {
        (loss / divisor)?
    };
    let loss = keep(&terms.counts, &loss, 0.0)?;
    let others = if op.outputs {
        let part = |first: usize| flat.narrow(0, first, rows)?.reshape((rows, 1));
        Some((
            part(losses)?,
            keep(&terms.counts, &part(losses + rows)?, 0.0)?,
        ))
    } else {
        None
    };
    Ok(Upstream { loss, others })
}

/// The gradient with respect to probabilities: -g (1 - e) w_c l_c.
pub(super) fn gradient_of_probabilities(
    op: &CrossEntropyOp,
    logits: &Tensor,
    probabilities: &Tensor,
    upstream: &Tensor,
) -> Result<Tensor> {
    let plan = &op.plan;
    if plan.geometry.rows() == 0 {
        return probabilities.zeros_like();
    }
    let terms = Terms::new(plan, logits, probabilities, RowsRead::Counted)?;
    let upstream = upstream_rows(op, &terms, upstream)?;
    let weights = class_factors(plan, logits)?;
    let gradient = terms
        .log_probabilities
        .broadcast_mul(&weights)?
        .broadcast_mul(&upstream.loss)?
        .neg()?;
    from_rows(&gradient, probabilities.dims())?.to_dtype(probabilities.dtype())
}

/// (1 - e) w_c, (1, C).
fn class_factors(plan: &Plan, logits: &Tensor) -> Result<Tensor> {
    let classes = plan.geometry.classes;
    let hard = 1.0 - plan.options.label_smoothing;
    match &plan.options.weight {
        Some(weight) => weight.to_dtype(plan.compute)?.reshape((1, classes))? * hard,
        None => Tensor::full(hard, (1, classes), logits.device())?.to_dtype(plan.compute),
    }
}

/// The derivatives of `sum(direction * gradient)` with respect to logits, target and upstream gradient, each where it
/// is tracked.
pub(super) fn backward(
    op: &CrossEntropyOp,
    logits: &Tensor,
    target: &Tensor,
    upstream: &Tensor,
    direction: &Tensor,
) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
    let plan = &op.plan;
    let o = &plan.options;
    if plan.geometry.rows() == 0 {
        let zeros = |x: &Tensor| {
            if x.track_op() {
                x.zeros_like().map(Some)
            } else {
                Ok(None)
            }
        };
        let of_target = if target.dtype().is_float() {
            zeros(target)?
        } else {
            None
        };
        return Ok((zeros(logits)?, of_target, zeros(upstream)?));
    }
    let rows_read = if op.outputs {
        RowsRead::All
    } else {
        RowsRead::Counted
    };
    let terms = Terms::new(plan, logits, target, rows_read)?;
    let p = terms.log_probabilities.exp()?;
    let g = upstream_rows(op, &terms, upstream)?;
    let q = &terms.coefficients;

    // f and f'/f.
    let (slope, bend) = match o.softcap {
        None => (terms.x.ones_like()?.affine(o.logit_scale, 0.0)?, None),
        Some(cap) => {
            let t = (&terms.x / cap)?;
            let slope = t.sqr()?.affine(-o.logit_scale, o.logit_scale)?;
            (slope, Some((t * (-2.0 * o.logit_scale / cap))?))
        }
    };
    let v = (to_rows(plan, direction)?.to_dtype(plan.compute)? * &slope)?;
    let s = (&v * &p)?.sum_keepdim(D::Minus1)?;
    let mut of_loss = q.sum_keepdim(D::Minus1)?;
    if o.z_loss != 0.0 {
        of_loss = (of_loss + (&terms.lse * (2.0 * o.z_loss))?)?;
    }
    let mut a = (&g.loss * &of_loss)?;
    // g q_c - u 1[c = y].
    let mut minus = q.broadcast_mul(&g.loss)?;
    if let (Some((lse, target_log_prob)), Some(one_hot)) = (&g.others, &terms.one_hot) {
        a = ((a + lse)? - target_log_prob)?;
        minus = (minus - one_hot.broadcast_mul(target_log_prob)?)?;
    }

    let of_logits = if logits.track_op() {
        let mut inner = v.broadcast_sub(&s)?.broadcast_mul(&a)?;
        if o.z_loss != 0.0 {
            inner = inner.broadcast_add(&((&g.loss * &s)? * (2.0 * o.z_loss))?)?;
        }
        let mut result = ((&p * inner)? * &slope)?;
        if let Some(bend) = bend {
            let gradient = (p.broadcast_mul(&a)? - &minus)?;
            result = (result + ((&v * bend)? * gradient)?)?;
        }
        if let Some((lse, _)) = &g.others {
            // A row without upstream gradient has none, whatever it holds.
            result = keep(&(&terms.counts + lse.ne(0.0)?)?.ne(0u8)?, &result, 0.0)?;
        }
        Some(from_rows(&result, logits.dims())?.to_dtype(logits.dtype())?)
    } else {
        None
    };

    let of_target = if plan.kind == TargetKind::Probabilities && target.track_op() {
        let result = v
            .broadcast_sub(&s)?
            .neg()?
            .broadcast_mul(&class_factors(plan, logits)?)?
            .broadcast_mul(&g.loss)?;
        Some(from_rows(&result, target.dims())?.to_dtype(target.dtype())?)
    } else {
        None
    };

    let of_upstream = if upstream.track_op() {
        let of_rows = ((&of_loss * &s)? - (&v * q)?.sum_keepdim(D::Minus1)?)?;
        let divisor = op.saved()?.divisor.value()?;
        let of_rows = keep(&terms.counts, &of_rows, 0.0)?;
        let of_rows = if divisor == 0.0 {
            of_rows.zeros_like()?
        } else {
            (of_rows / divisor)?
        };
        let of_loss = if o.reduction == Reduction::None {
            of_rows.flatten_all()?
        } else {
            of_rows.sum_all()?.reshape(1)?
        };
        let all = match (&g.others, &terms.one_hot) {
            (Some(_), Some(one_hot)) => {
                let at_target = ((&v * one_hot)?.sum_keepdim(D::Minus1)? - &s)?;
                let at_target = keep(&terms.counts, &at_target, 0.0)?;
                Tensor::cat(&[of_loss, s.flatten_all()?, at_target.flatten_all()?], 0)?
            }
            _ => of_loss,
        };
        Some(all.reshape(upstream.shape())?.to_dtype(upstream.dtype())?)
    } else {
        None
    };
    Ok((of_logits, of_target, of_upstream))
}
