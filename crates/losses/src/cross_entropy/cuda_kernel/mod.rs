//! The CUDA kernels of cross entropy, in `cross_entropy.cu`: every option, dtype and layout that the CPU kernel has.
//!
//! Nothing here waits for the device, but for what is returned as a number of the host: the number correct, and an
//! error about targets where it was asked for ([`super::CrossEntropy::validate_targets`]).

mod geometry;
mod rows;
mod totals;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::CudaView;
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Error, Layout, Result, Shape, Storage, Tensor};
use half::{bf16, f16};

use super::composed::of_nothing;
use super::cpu_kernel::Wants;
use super::fused::{CrossEntropyOp, Divisor, Saved, not_here};
use super::plan::{Plan, TargetKind};
use crate::Reduction;
use crate::cuda_kernel::{CudaElement, Module, RowTotals, filled_later, ptx};
use geometry::Layouts;
use rows::{Gradient, Outputs, Pass, Rows, Upstream};
use totals::{row_totals, validate};

/// A tensor's memory and layout.
pub(super) type Operand<'a> = (&'a CudaStorage, &'a Layout);

const MODULE: Module = Module {
    name: "candle_losses_cross_entropy",
    ptx: ptx::CROSS_ENTROPY,
};

/// A tensor over fresh storage.
pub(super) fn tensor(storage: CudaStorage, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}

/// Calls a generic function with the element type of the logits.
macro_rules! by_dtype {
    ($storage:expr, $function:ident($($argument:expr),*)) => {
        match $storage.dtype() {
            DType::F32 => $function::<f32>($($argument),*),
            DType::F64 => $function::<f64>($($argument),*),
            DType::F16 => $function::<f16>($($argument),*),
            DType::BF16 => $function::<bf16>($($argument),*),
            other => Err(Error::UnsupportedDTypeForOp(other, "cross_entropy").bt()),
        }
    };
}

/// The loss, one number or one a row, with what [`Wants::outputs`] appends; and what is kept for backward: all maxima of
/// x', then all sums of exp(x' - max), then, where classes beside the target's have coefficients, all sums of those.
pub(super) fn forward(
    plan: &Plan,
    logits: Operand<'_>,
    target: Operand<'_>,
    wants: Wants,
) -> Result<(CudaStorage, Saved)> {
    by_dtype!(logits.0, forward_of(plan, logits, target, wants))
}

/// The gradient with respect to the logits, contiguous.
pub(super) fn gradient(
    op: &CrossEntropyOp,
    logits: Operand<'_>,
    target: Operand<'_>,
    upstream: Operand<'_>,
) -> Result<CudaStorage> {
    let pass = Pass::Gradient;
    by_dtype!(logits.0, gradient_of(pass, op, logits, target, upstream))
}

/// The gradient with respect to probabilities.
pub(super) fn gradient_of_probabilities(
    op: &CrossEntropyOp,
    logits: &Tensor,
    probabilities: &Tensor,
    upstream: &Tensor,
) -> Result<Tensor> {
    let (x, x_layout) = logits.storage_and_layout();
    let (t, t_layout) = probabilities.storage_and_layout();
    let (g, g_layout) = upstream.storage_and_layout();
    let (Storage::Cuda(x), Storage::Cuda(t), Storage::Cuda(g)) = (&*x, &*t, &*g) else {
        return Err(not_here());
    };
    let pass = Pass::TargetGradient;
    let storage = by_dtype!(
        x,
        gradient_of(pass, op, (x, x_layout), (t, t_layout), (g, g_layout))
    )?;
    Ok(tensor(storage, probabilities.shape()))
}

/// The loss, and its gradient as a contiguous tensor.
pub(super) fn value_and_grad(
    plan: &Plan,
    logits: Operand<'_>,
    target: Operand<'_>,
) -> Result<(CudaStorage, CudaStorage)> {
    by_dtype!(logits.0, value_and_grad_of(plan, logits, target))
}

/// The loss, and its gradient in the place of the logits.
pub(super) fn value_and_grad_in_place(
    plan: &Plan,
    logits: (&mut CudaStorage, &Layout),
    target: Operand<'_>,
) -> Result<CudaStorage> {
    by_dtype!(logits.0, in_place_of(plan, logits, target))
}

/// The divisor where it does not depend on the targets.
fn known_divisor(plan: &Plan) -> Option<f64> {
    match (plan.options.reduction, plan.options.num_items, plan.kind) {
        (_, Some(items), _) => Some(items),
        (Reduction::Mean, None, TargetKind::Probabilities) => Some(plan.geometry.rows() as f64),
        (Reduction::Mean, None, TargetKind::Indices) => None,
        (Reduction::Sum | Reduction::None, None, _) => Some(1.0),
    }
}

/// The loss of no rows: one number, or none.
fn loss_of_no_rows<A: CudaElement>(plan: &Plan, device: &CudaDevice) -> Result<CudaStorage> {
    let x = match (plan.options.reduction, known_divisor(plan)) {
        (Reduction::Mean, None | Some(0.0)) => of_nothing(plan.options.on_empty),
        _ => 0.0,
    };
    let loss = device.clone_htod(&[A::from_f64(x)])?;
    Ok(CudaStorage::wrap_cuda_slice(loss, device.clone()))
}

/// The class weights in the compute type, contiguous.
fn weights(plan: &Plan) -> Result<Option<Tensor>> {
    plan.options
        .weight
        .as_ref()
        .map(|weight| weight.to_dtype(plan.compute)?.contiguous())
        .transpose()
}

/// Calls `f` with the memory of a contiguous tensor, if there is one.
fn with_memory<A: CudaElement, R>(
    tensor: Option<&Tensor>,
    f: impl FnOnce(Option<&CudaView<'_, A>>) -> Result<R>,
) -> Result<R> {
    let Some(tensor) = tensor else { return f(None) };
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        return Err(Error::msg("cross_entropy: a tensor on the device is not on it").bt());
    };
    let view = storage.as_cuda_slice::<A>()?.slice(layout.start_offset()..);
    f(Some(&view))
}

fn forward_of<E: CudaElement>(
    plan: &Plan,
    logits: Operand<'_>,
    target: Operand<'_>,
    wants: Wants,
) -> Result<(CudaStorage, Saved)> {
    let device = logits.0.device();
    let count = plan.geometry.rows();
    let per_row = plan.options.reduction == Reduction::None;
    if count == 0 {
        let nothing = |slice| tensor(CudaStorage::wrap_cuda_slice(slice, device.clone()), 0);
        let saved = Saved {
            kept: match wants.sums {
                true => Some(nothing(filled_later::<E::Compute>(device, 0)?)),
                false => None,
            },
            argmax: match wants.outputs {
                true => Some(tensor(
                    CudaStorage::wrap_cuda_slice(filled_later::<u32>(device, 0)?, device.clone()),
                    0,
                )),
                false => None,
            },
            correct: 0,
            divisor: Divisor::Known(known_divisor(plan).unwrap_or(0.0)),
        };
        return Ok((loss_of_no_rows::<E::Compute>(plan, device)?, saved));
    }
    let weights = weights(plan)?;
    with_memory::<E::Compute, _>(weights.as_ref(), |weights| {
        let rows = Rows::<E>::new(plan, logits, target, weights)?;
        validate(&rows)?;
        let losses = if per_row { count } else { 1 };
        let appended = if wants.outputs { count } else { 0 };
        let values = filled_later::<E::Compute>(device, losses + 2 * appended)?;
        let row_losses = (!per_row)
            .then(|| filled_later::<E::Compute>(device, count))
            .transpose()?;
        let kept_numbers = if rows::is_dense(plan) { 3 } else { 2 };
        let kept = wants
            .sums
            .then(|| filled_later::<E::Compute>(device, kept_numbers * count))
            .transpose()?;
        let argmax = wants
            .outputs
            .then(|| filled_later::<u32>(device, count))
            .transpose()?;

        let loss_view = match &row_losses {
            Some(losses) => losses.slice(..),
            None => values.slice(..count),
        };
        let part = |n: usize| {
            kept.as_ref()
                .map(|kept| kept.slice(n * count..(n + 1) * count))
        };
        let output = |first: usize| wants.outputs.then(|| values.slice(first..first + count));
        rows.forward(&Outputs {
            losses: Some(loss_view.slice(..)),
            maxima: part(0),
            sums: part(1),
            dense: if rows::is_dense(plan) { part(2) } else { None },
            lse: output(losses),
            target_log_prob: output(losses + count),
            argmax: argmax.as_ref().map(|argmax| argmax.slice(..)),
        })?;

        let divisor = known_divisor(plan);
        let totals = if per_row && !wants.outputs {
            None
        } else {
            let losses = (!per_row).then_some(&loss_view);
            let loss = (!per_row).then(|| values.slice(..1));
            Some(row_totals(
                &rows,
                losses,
                argmax.as_ref(),
                divisor,
                loss.as_ref(),
            )?)
        };
        let correct = match (&totals, wants.outputs) {
            (Some(totals), true) => totals.correct()?,
            _ => 0,
        };
        let divisor = match (divisor, totals) {
            (Some(divisor), _) => Divisor::Known(divisor),
            (None, Some(totals)) => Divisor::OnDevice(totals.into_tensor()),
            (None, None) => {
                return Err(Error::msg("cross_entropy: a mean without totals").bt());
            }
        };
        let wrap = |slice| CudaStorage::wrap_cuda_slice(slice, device.clone());
        let saved = Saved {
            kept: kept.map(|kept| tensor(wrap(kept), (kept_numbers, count))),
            argmax: argmax
                .map(|argmax| tensor(CudaStorage::wrap_cuda_slice(argmax, device.clone()), count)),
            correct,
            divisor,
        };
        Ok((wrap(values), saved))
    })
}

fn gradient_of<E: CudaElement>(
    pass: Pass,
    op: &CrossEntropyOp,
    logits: Operand<'_>,
    target: Operand<'_>,
    upstream: Operand<'_>,
) -> Result<CudaStorage> {
    let plan = &op.plan;
    let device = logits.0.device();
    let count = plan.geometry.rows();
    let shape = logits.1.shape();
    let out = filled_later::<E>(device, shape.elem_count())?;
    if count == 0 {
        return Ok(CudaStorage::wrap_cuda_slice(out, device.clone()));
    }
    let (kept, divisor) = op.kept()?;
    let (kept, _) = kept.storage_and_layout();
    let Storage::Cuda(kept) = &*kept else {
        return Err(not_here());
    };
    let weights = weights(plan)?;
    with_memory::<E::Compute, _>(weights.as_ref(), |weights| {
        let totals = match divisor {
            Divisor::Known(_) => None,
            Divisor::OnDevice(totals) => Some(totals),
        };
        with_memory::<f64, _>(totals, |totals| {
            let kept = kept.as_cuda_slice::<E::Compute>()?;
            let part = |n: usize| Some(kept.slice(n * count..(n + 1) * count));
            let rows = Rows::<E>::new(plan, logits, target, weights)?;
            let found = Outputs {
                maxima: part(0),
                sums: part(1),
                dense: if rows::is_dense(plan) { part(2) } else { None },
                ..Outputs::default()
            };
            rows.gradient(
                pass,
                &found,
                &Gradient {
                    out: out.slice(..),
                    layout: &Layout::contiguous(shape),
                    upstream: Some(Upstream::new(plan, upstream, op.outputs)?),
                    totals,
                    divisor: match divisor {
                        Divisor::Known(divisor) => *divisor,
                        Divisor::OnDevice(_) => 1.0,
                    },
                },
            )
        })
    })?;
    Ok(CudaStorage::wrap_cuda_slice(out, device.clone()))
}

/// Runs the kernels for loss and gradient at once and returns the loss.
fn run_value_and_grad<E: CudaElement>(
    plan: &Plan,
    logits: Operand<'_>,
    target: Operand<'_>,
    out: CudaView<'_, E>,
    out_layout: &Layout,
) -> Result<CudaStorage> {
    let device = logits.0.device();
    let count = plan.geometry.rows();
    if count == 0 {
        return loss_of_no_rows::<E::Compute>(plan, device);
    }
    let per_row = plan.options.reduction == Reduction::None;
    let weights = weights(plan)?;
    with_memory::<E::Compute, _>(weights.as_ref(), |weights| {
        let rows = Rows::<E>::new(plan, logits, target, weights)?;
        validate(&rows)?;
        let divisor = known_divisor(plan);
        // The gradient needs the divisor before the losses are known.
        let counted = match divisor {
            Some(_) => None,
            None => Some(row_totals(&rows, None, None, None, None)?),
        };
        let losses = filled_later::<E::Compute>(device, count)?;
        rows.gradient(
            Pass::Both,
            &Outputs {
                losses: Some(losses.slice(..)),
                ..Outputs::default()
            },
            &Gradient {
                out,
                layout: out_layout,
                upstream: None,
                totals: counted.as_ref().map(RowTotals::memory).as_ref(),
                divisor: divisor.unwrap_or(1.0),
            },
        )?;
        if per_row {
            return Ok(CudaStorage::wrap_cuda_slice(losses, device.clone()));
        }
        let loss = filled_later::<E::Compute>(device, 1)?;
        row_totals(
            &rows,
            Some(&losses.slice(..)),
            None,
            divisor,
            Some(&loss.slice(..)),
        )?;
        Ok(CudaStorage::wrap_cuda_slice(loss, device.clone()))
    })
}

fn value_and_grad_of<E: CudaElement>(
    plan: &Plan,
    logits: Operand<'_>,
    target: Operand<'_>,
) -> Result<(CudaStorage, CudaStorage)> {
    let device = logits.0.device();
    let shape = logits.1.shape();
    let out = filled_later::<E>(device, shape.elem_count())?;
    let layout = Layout::contiguous(shape);
    let loss = run_value_and_grad::<E>(plan, logits, target, out.slice(..), &layout)?;
    Ok((loss, CudaStorage::wrap_cuda_slice(out, device.clone())))
}

fn in_place_of<E: CudaElement>(
    plan: &Plan,
    (storage, layout): (&mut CudaStorage, &Layout),
    target: Operand<'_>,
) -> Result<CudaStorage> {
    let storage = &*storage;
    let out = storage.as_cuda_slice::<E>()?.slice(layout.start_offset()..);
    run_value_and_grad::<E>(plan, (storage, layout), target, out, layout)
}
