//! From Candle's storages and layouts to a run of the kernel and back.

use candle_core::{CpuStorage, DType, Error, Layout, Result, WithDType};
use candle_simd::buffer::Uninit;
use candle_simd::parallel::Disjoint;
use candle_simd::{Element, Float};
use half::{bf16, f16};

use super::{
    Indices, Matrix, PerRow, Recipe, RowOutputs, Rows, Run, Sink, Source, Target, Totals, Upstream,
    total_weight,
};
use crate::Reduction;
use crate::cross_entropy::composed::of_nothing;
use crate::cross_entropy::plan::{Plan, TargetKind};

/// A tensor's memory and layout.
pub(in crate::cross_entropy) type Operand<'a> = (&'a CpuStorage, &'a Layout);

/// What forward is asked for beside the loss.
#[derive(Clone, Copy, Debug)]
pub(in crate::cross_entropy) struct Wants {
    /// The sums for backward.
    pub(in crate::cross_entropy) sums: bool,
    /// lse and log-probability of the target appended to the loss, argmax and number correct.
    pub(in crate::cross_entropy) outputs: bool,
}

/// What forward found.
#[derive(Debug)]
pub(in crate::cross_entropy) struct Forward {
    /// The loss, one number or one a row, and what [`Wants::outputs`] appends.
    pub(in crate::cross_entropy) values: CpuStorage,
    pub(in crate::cross_entropy) sums: Option<CpuStorage>,
    pub(in crate::cross_entropy) argmax: Option<Vec<u32>>,
    pub(in crate::cross_entropy) correct: usize,
    /// What the losses were divided by; 0 for a mean over nothing.
    pub(in crate::cross_entropy) divisor: f64,
}

/// Calls a generic function with the element type of the logits.
macro_rules! by_dtype {
    ($storage:expr, $function:ident($($argument:expr),*)) => {
        match $storage {
            CpuStorage::F32(_) => $function::<f32>($($argument),*),
            CpuStorage::F64(_) => $function::<f64>($($argument),*),
            CpuStorage::F16(_) => $function::<f16>($($argument),*),
            CpuStorage::BF16(_) => $function::<bf16>($($argument),*),
            other => Err(Error::UnsupportedDTypeForOp(candle_core::backend::BackendStorage::dtype(other), "cross_entropy")),
        }
    };
}

pub(in crate::cross_entropy) fn forward(
    plan: &Plan,
    logits: Operand<'_>,
    target: Operand<'_>,
    wants: Wants,
) -> Result<Forward> {
    by_dtype!(logits.0, forward_of(plan, logits, target, wants))
}

/// The gradient with respect to the logits, contiguous. `sums` and `divisor` are those of [`Forward`].
pub(in crate::cross_entropy) fn gradient(
    plan: &Plan,
    logits: Operand<'_>,
    target: Operand<'_>,
    upstream: Operand<'_>,
    saved: (&CpuStorage, f64),
    outputs: bool,
) -> Result<CpuStorage> {
    by_dtype!(
        logits.0,
        gradient_of(plan, logits, target, upstream, saved, outputs)
    )
}

/// The loss, and its gradient as a contiguous tensor.
pub(in crate::cross_entropy) fn value_and_grad(
    plan: &Plan,
    logits: Operand<'_>,
    target: Operand<'_>,
) -> Result<(CpuStorage, CpuStorage)> {
    by_dtype!(logits.0, value_and_grad_of(plan, logits, target))
}

/// The loss, and its gradient in the place of the logits.
pub(in crate::cross_entropy) fn value_and_grad_in_place(
    plan: &Plan,
    logits: (&mut CpuStorage, &Layout),
    target: Operand<'_>,
) -> Result<CpuStorage> {
    let (storage, layout) = logits;
    match storage {
        CpuStorage::F32(data) => in_place_of(plan, data, layout, target),
        CpuStorage::F64(data) => in_place_of(plan, data, layout, target),
        CpuStorage::F16(data) => in_place_of(plan, data, layout, target),
        CpuStorage::BF16(data) => in_place_of(plan, data, layout, target),
        other => Err(Error::UnsupportedDTypeForOp(
            candle_core::backend::BackendStorage::dtype(other),
            "cross_entropy",
        )),
    }
}

/// The class weights in two precisions.
struct Weights<F> {
    wide: Option<Vec<f64>>,
    compute: Option<Vec<F>>,
}

impl<F: Float> Weights<F> {
    fn new(plan: &Plan) -> Result<Self> {
        let wide = match &plan.options.weight {
            None => None,
            Some(weight) => Some(weight.to_dtype(DType::F64)?.to_vec1::<f64>()?),
        };
        let compute = wide
            .as_ref()
            .map(|w| w.iter().map(|&w| F::from_f64(w)).collect());
        Ok(Self { wide, compute })
    }

    fn recipe(&self, plan: &Plan) -> Recipe<'_, F> {
        let o = &plan.options;
        let classes = plan.geometry.classes;
        Recipe {
            classes,
            scale: F::from_f64(o.logit_scale),
            cap: o.softcap.map(F::from_f64),
            z_loss: F::from_f64(o.z_loss),
            hard: F::from_f64(1.0 - o.label_smoothing),
            uniform: F::from_f64(o.label_smoothing / classes as f64),
            weights: self.compute.as_deref(),
            probabilities: plan.kind == TargetKind::Probabilities,
        }
    }
}

/// The target of a call; the matrix lays out probabilities.
fn target_of<'a, E: Element + WithDType>(
    plan: &Plan,
    (storage, layout): Operand<'a>,
    matrix: &'a Option<Matrix>,
) -> Result<Target<'a, E>> {
    match matrix {
        None => Ok(Target::Indices(Indices::new(
            storage,
            layout,
            plan.options.ignore_index,
        )?)),
        Some(matrix) => Ok(Target::Probabilities(Source::new(
            E::cpu_storage_as_slice(storage)?,
            matrix,
        ))),
    }
}

/// The layout of probabilities; none for indices.
fn target_matrix<E: Element + WithDType>(
    plan: &Plan,
    (storage, layout): Operand<'_>,
) -> Result<Option<Matrix>> {
    match plan.kind {
        TargetKind::Indices => Ok(None),
        TargetKind::Probabilities => Ok(Some(Matrix::of_layout(
            layout,
            E::cpu_storage_as_slice(storage)?.len(),
        ))),
    }
}

/// What the sum of the losses is divided by, of the total weight of the rows that count.
fn divisor(plan: &Plan, total_weight: f64) -> f64 {
    match (plan.options.reduction, plan.options.num_items) {
        (_, Some(items)) => items,
        (Reduction::Mean, None) => total_weight,
        (Reduction::Sum | Reduction::None, None) => 1.0,
    }
}

/// The reduced loss.
fn reduced<F: Float>(plan: &Plan, totals: Totals, divisor: f64) -> F {
    F::from_f64(if divisor == 0.0 {
        of_nothing(plan.options.on_empty)
    } else {
        totals.loss / divisor
    })
}

fn forward_of<E: Element + WithDType>(
    plan: &Plan,
    logits: Operand<'_>,
    target: Operand<'_>,
    wants: Wants,
) -> Result<Forward>
where
    E::Compute: WithDType,
{
    type F<E> = <E as Element>::Compute;
    let data = E::cpu_storage_as_slice(logits.0)?;
    let rows = plan.geometry.rows();
    let matrix = Matrix::of_layout(logits.1, data.len());
    let target_matrix = target_matrix::<E>(plan, target)?;
    let target = target_of::<E>(plan, target, &target_matrix)?;
    let weights = Weights::<F<E>>::new(plan)?;
    let total = total_weight(
        &target,
        rows,
        plan.geometry.classes,
        weights.wide.as_deref(),
    )?;
    let divisor = divisor(plan, total);

    let per_row = plan.options.reduction == Reduction::None;
    let losses = if per_row { rows } else { 1 };
    let appended = if wants.outputs { rows } else { 0 };
    let mut values = vec![F::<E>::ZERO; losses + 2 * appended];
    let mut sums = vec![F::<E>::ONE; if wants.sums { rows } else { 0 }];
    let mut argmax = vec![0u32; appended];
    let (loss_values, rest) = values.split_at_mut(losses);
    let (lse, target_log_prob) = rest.split_at_mut(appended);
    let outputs = RowOutputs {
        losses: per_row.then(|| Disjoint::new(&mut *loss_values)),
        sums: wants.sums.then(|| Disjoint::new(&mut sums)),
        lse: wants.outputs.then(|| Disjoint::new(lse)),
        target_log_prob: wants.outputs.then(|| Disjoint::new(target_log_prob)),
        argmax: wants.outputs.then(|| Disjoint::new(&mut argmax)),
    };
    let totals = Run {
        recipe: weights.recipe(plan),
        rows,
        logits: Source::new(data, &matrix),
        target,
        sums: None,
        outputs,
        gradient: None,
    }
    .execute();
    if !per_row {
        values[0] = reduced(plan, totals, divisor);
    }
    Ok(Forward {
        values: F::<E>::to_cpu_storage_owned(values),
        sums: wants.sums.then(|| F::<E>::to_cpu_storage_owned(sums)),
        argmax: wants.outputs.then_some(argmax),
        correct: totals.correct,
        divisor,
    })
}

/// The upstream gradient in the form of [`Forward::values`], taken apart.
fn upstream_of<'a, F: Float>(
    plan: &Plan,
    data: &'a [F],
    layout: &Layout,
    divisor: f64,
    outputs: bool,
) -> Upstream<'a, F> {
    let rows = plan.geometry.rows();
    let zero = PerRow::All(F::ZERO);
    let per_row = plan.options.reduction == Reduction::None;
    let start = layout.start_offset();
    let (loss, lse, target_log_prob) = if outputs {
        let stride = layout.stride()[0];
        let part = |first: usize| {
            PerRow::Rows(
                data,
                Rows::new(start + first * stride, std::iter::once((rows, stride))),
            )
        };
        let losses = if per_row { rows } else { 1 };
        let loss = if per_row {
            part(0)
        } else {
            PerRow::All(data[start])
        };
        (loss, part(losses), part(losses + rows))
    } else if per_row {
        (
            PerRow::Rows(data, Rows::of_row_tensor(layout)),
            zero.clone(),
            zero,
        )
    } else {
        (PerRow::All(data[start]), zero.clone(), zero)
    };
    if divisor == 0.0 {
        // A mean over nothing is a constant.
        return Upstream {
            loss: PerRow::All(F::ZERO),
            divisor: F::ONE,
            lse,
            target_log_prob,
        };
    }
    Upstream {
        loss,
        divisor: F::from_f64(divisor),
        lse,
        target_log_prob,
    }
}

fn gradient_of<E: Element + WithDType>(
    plan: &Plan,
    logits: Operand<'_>,
    target: Operand<'_>,
    upstream: Operand<'_>,
    (sums, divisor): (&CpuStorage, f64),
    outputs: bool,
) -> Result<CpuStorage>
where
    E::Compute: WithDType,
{
    let data = E::cpu_storage_as_slice(logits.0)?;
    let matrix = Matrix::of_layout(logits.1, data.len());
    let target_matrix = target_matrix::<E>(plan, target)?;
    let weights = Weights::<E::Compute>::new(plan)?;
    let upstream_data = <E::Compute as WithDType>::cpu_storage_as_slice(upstream.0)?;
    let mut fresh = Fresh::<E>::new(logits.1);
    Run {
        recipe: weights.recipe(plan),
        rows: plan.geometry.rows(),
        logits: Source::new(data, &matrix),
        target: target_of::<E>(plan, target, &target_matrix)?,
        sums: Some(<E::Compute as WithDType>::cpu_storage_as_slice(sums)?),
        outputs: RowOutputs::none(),
        gradient: Some((
            fresh.sink(),
            upstream_of(plan, upstream_data, upstream.1, divisor, outputs),
        )),
    }
    .execute();
    // SAFETY: the run wrote every row.
    Ok(unsafe { fresh.into_storage() })
}

/// A contiguous gradient that is not written yet.
struct Fresh<E> {
    memory: Uninit<E>,
    matrix: Matrix,
    len: usize,
}

impl<E: Element + WithDType> Fresh<E> {
    fn new(logits: &Layout) -> Self {
        let len = logits.shape().elem_count();
        Self {
            memory: Uninit::new(len),
            matrix: Matrix::of_layout(&Layout::contiguous(logits.shape()), len),
            len,
        }
    }

    fn sink(&mut self) -> Sink<'_, E> {
        Sink::new(self.memory.as_uninit(), &self.matrix)
    }

    /// # Safety
    /// Every row has been written.
    unsafe fn into_storage(self) -> CpuStorage {
        // SAFETY: the rows make up all len elements, and the caller vouches that they are written.
        E::to_cpu_storage_owned(unsafe { self.memory.assume_init(self.len) })
    }
}

/// The upstream gradient of a loss that is the end: 1.
fn unit<F: Float>(divisor: f64) -> Upstream<'static, F> {
    let (loss, divisor) = if divisor == 0.0 {
        (F::ZERO, 1.0)
    } else {
        (F::ONE, divisor)
    };
    let zero = PerRow::All(F::ZERO);
    Upstream {
        loss: PerRow::All(loss),
        divisor: F::from_f64(divisor),
        lse: zero.clone(),
        target_log_prob: zero,
    }
}

/// Runs the kernel for loss and gradient at once and returns the loss.
fn run_value_and_grad<E: Element + WithDType>(
    plan: &Plan,
    logits: Source<'_, E>,
    sink: Sink<'_, E>,
    target: Operand<'_>,
) -> Result<CpuStorage>
where
    E::Compute: WithDType,
{
    let rows = plan.geometry.rows();
    let target_matrix = target_matrix::<E>(plan, target)?;
    let target = target_of::<E>(plan, target, &target_matrix)?;
    let weights = Weights::<E::Compute>::new(plan)?;
    let total = total_weight(
        &target,
        rows,
        plan.geometry.classes,
        weights.wide.as_deref(),
    )?;
    let divisor = divisor(plan, total);
    let per_row = plan.options.reduction == Reduction::None;
    let mut losses = vec![E::Compute::ZERO; if per_row { rows } else { 1 }];
    let outputs = RowOutputs {
        losses: per_row.then(|| Disjoint::new(&mut losses)),
        ..RowOutputs::none()
    };
    let totals = Run {
        recipe: weights.recipe(plan),
        rows,
        logits,
        target,
        sums: None,
        outputs,
        gradient: Some((sink, unit(divisor))),
    }
    .execute();
    if !per_row {
        losses[0] = reduced(plan, totals, divisor);
    }
    Ok(<E::Compute as WithDType>::to_cpu_storage_owned(losses))
}

fn value_and_grad_of<E: Element + WithDType>(
    plan: &Plan,
    logits: Operand<'_>,
    target: Operand<'_>,
) -> Result<(CpuStorage, CpuStorage)>
where
    E::Compute: WithDType,
{
    let data = E::cpu_storage_as_slice(logits.0)?;
    let matrix = Matrix::of_layout(logits.1, data.len());
    let mut fresh = Fresh::<E>::new(logits.1);
    let loss = run_value_and_grad(plan, Source::new(data, &matrix), fresh.sink(), target)?;
    // SAFETY: the run wrote every row.
    Ok((loss, unsafe { fresh.into_storage() }))
}

fn in_place_of<E: Element + WithDType>(
    plan: &Plan,
    data: &mut [E],
    layout: &Layout,
    target: Operand<'_>,
) -> Result<CpuStorage>
where
    E::Compute: WithDType,
{
    let matrix = Matrix::of_layout(layout, data.len());
    let (sink, source) = Sink::in_place(data, &matrix);
    run_value_and_grad(plan, source, sink, target)
}
