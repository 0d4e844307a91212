//! Launching a pass over rows.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaStorageSlice as Slice;
use candle_core::cuda_backend::cudarc::driver::CudaView;
use candle_core::{CudaDevice, DType, Error, Layout, Result};

use super::geometry::{Form, Strides};
use super::{Layouts, MODULE, Operand};
use crate::Reduction;
use crate::cross_entropy::error::bad;
use crate::cross_entropy::plan::{Plan, TargetKind};
use crate::cuda_kernel::{Argument, ClassIndices, CudaElement};

/// What a pass computes; `Pass` of the `.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Forward,
    Gradient,
    Both,
    TargetGradient,
}

impl Pass {
    fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Gradient => "gradient",
            Self::Both => "both",
            Self::TargetGradient => "target_gradient",
        }
    }
}

/// Results of each row; in a gradient pass `maxima`, `sums` and `dense` are read.
pub(super) struct Outputs<'a, A> {
    pub(super) losses: Option<CudaView<'a, A>>,
    pub(super) maxima: Option<CudaView<'a, A>>,
    pub(super) sums: Option<CudaView<'a, A>>,
    pub(super) dense: Option<CudaView<'a, A>>,
    pub(super) lse: Option<CudaView<'a, A>>,
    pub(super) target_log_prob: Option<CudaView<'a, A>>,
    pub(super) argmax: Option<CudaView<'a, u32>>,
}

impl<A> Default for Outputs<'_, A> {
    fn default() -> Self {
        Self {
            losses: None,
            maxima: None,
            sums: None,
            dense: None,
            lse: None,
            target_log_prob: None,
            argmax: None,
        }
    }
}

/// Where a gradient goes and what it is multiplied by.
pub(super) struct Gradient<'a, E: CudaElement> {
    pub(super) out: CudaView<'a, E>,
    pub(super) layout: &'a Layout,
    /// None is 1.
    pub(super) upstream: Option<Upstream<'a, E::Compute>>,
    /// Their second number is the divisor where there are any.
    pub(super) totals: Option<&'a CudaView<'a, f64>>,
    pub(super) divisor: f64,
}

/// The upstream gradient in the form of forward's values, taken apart.
pub(super) struct Upstream<'a, A> {
    loss: CudaView<'a, A>,
    strides: Strides,
    /// Of lse and of the target's log-probability.
    others: Option<(CudaView<'a, A>, CudaView<'a, A>)>,
    others_stride: usize,
}

impl<'a, A: CudaElement> Upstream<'a, A> {
    pub(super) fn new(plan: &Plan, (storage, layout): Operand<'a>, outputs: bool) -> Result<Self> {
        let memory = storage.as_cuda_slice::<A>()?;
        let (row_dims, rows) = (&plan.geometry.row_shape, plan.geometry.rows());
        let per_row = plan.options.reduction == Reduction::None;
        let start = layout.start_offset();
        if !outputs {
            return Ok(Self {
                loss: memory.slice(start..),
                strides: if per_row {
                    Strides::of_rows(layout)
                } else {
                    Strides::spaced(row_dims, 0)
                },
                others: None,
                others_stride: 0,
            });
        }
        let stride = layout.stride()[0];
        let losses = if per_row { rows } else { 1 };
        let part = |first: usize| memory.slice(start + first * stride..);
        Ok(Self {
            loss: part(0),
            strides: Strides::spaced(row_dims, if per_row { stride } else { 0 }),
            others: Some((part(losses), part(losses + rows))),
            others_stride: stride,
        })
    }
}

/// Whether classes other than the target's have coefficients, in the precision of the kernel.
pub(super) fn is_dense(plan: &Plan) -> bool {
    let uniform = uniform(plan);
    let is_uniform = if plan.compute == DType::F64 {
        uniform != 0.0
    } else {
        uniform as f32 != 0.0
    };
    plan.kind == TargetKind::Probabilities || is_uniform
}

fn uniform(plan: &Plan) -> f64 {
    plan.options.label_smoothing / plan.geometry.classes as f64
}

fn number(stride: usize) -> Argument<'static> {
    (stride as u64).into()
}

fn targets<'a>(kind: TargetKind, (storage, layout): Operand<'a>) -> Result<ClassIndices<'a>> {
    let start = layout.start_offset();
    let indices = match kind {
        TargetKind::Indices => ClassIndices::new(storage, start),
        TargetKind::Probabilities => match &storage.slice {
            Slice::F32(slice) => Some(ClassIndices::none(slice.slice(start..))),
            Slice::F64(slice) => Some(ClassIndices::none(slice.slice(start..))),
            Slice::F16(slice) => Some(ClassIndices::none(slice.slice(start..))),
            Slice::BF16(slice) => Some(ClassIndices::none(slice.slice(start..))),
            _ => None,
        },
    };
    indices.ok_or_else(|| Error::UnsupportedDTypeForOp(storage.dtype(), "cross_entropy").bt())
}

/// The rows of a call.
pub(super) struct Rows<'a, E: CudaElement> {
    pub(super) plan: &'a Plan,
    logits: Operand<'a>,
    memory: CudaView<'a, E>,
    pub(super) target: Operand<'a>,
    targets: ClassIndices<'a>,
    pub(super) weights: Option<&'a CudaView<'a, E::Compute>>,
}

impl<'a, E: CudaElement> Rows<'a, E> {
    pub(super) fn new(
        plan: &'a Plan,
        logits: Operand<'a>,
        target: Operand<'a>,
        weights: Option<&'a CudaView<'a, E::Compute>>,
    ) -> Result<Self> {
        // The kernels count classes in 32 bits, and a grid has no more blocks; a block takes a row or more.
        let most = i32::MAX as usize;
        let (rows, classes) = (plan.geometry.rows(), plan.geometry.classes);
        if rows > most || classes > most {
            return Err(bad(
                "logits",
                format!("have at most {most} rows and classes on CUDA"),
                format!("{rows} and {classes}"),
                "cut the batch",
            ));
        }
        Ok(Self {
            plan,
            logits,
            memory: logits
                .0
                .as_cuda_slice::<E>()?
                .slice(logits.1.start_offset()..),
            target,
            targets: targets(plan.kind, target)?,
            weights,
        })
    }

    pub(super) fn device(&self) -> &CudaDevice {
        self.logits.0.device()
    }

    /// `targets` and `target_type`.
    pub(super) fn target(&self) -> [Argument<'_>; 2] {
        [self.targets.memory(), self.targets.code()]
    }

    pub(super) fn target_strides(&self) -> Strides {
        match self.plan.kind {
            TargetKind::Indices => Strides::of_rows(self.target.1),
            TargetKind::Probabilities => Strides::of_classes(self.target.1),
        }
    }

    /// `has_ignore` and `ignore`.
    pub(super) fn ignore(&self) -> [Argument<'static>; 2] {
        let ignore = self.plan.options.ignore_index;
        [
            u32::from(ignore.is_some()).into(),
            ignore.unwrap_or(0).into(),
        ]
    }

    pub(super) fn forward(&self, outputs: &Outputs<'_, E::Compute>) -> Result<()> {
        self.launch(Pass::Forward, outputs, None)
    }

    pub(super) fn gradient(
        &self,
        pass: Pass,
        outputs: &Outputs<'_, E::Compute>,
        gradient: &Gradient<'_, E>,
    ) -> Result<()> {
        self.launch(pass, outputs, Some(gradient))
    }

    fn launch(
        &self,
        pass: Pass,
        outputs: &Outputs<'_, E::Compute>,
        gradient: Option<&Gradient<'_, E>>,
    ) -> Result<()> {
        let plan = self.plan;
        let o = &plan.options;
        let (rows, classes) = (plan.geometry.rows(), plan.geometry.classes);
        let row_dims = &plan.geometry.row_shape;
        let logits = Strides::of_classes(self.logits.1);
        let nothing = Strides::spaced(row_dims, 0);
        let out = gradient.map(|gradient| Strides::of_classes(gradient.layout));
        let upstream = gradient.and_then(|gradient| gradient.upstream.as_ref());
        let layouts = Layouts::new(
            row_dims,
            [
                &logits,
                &self.target_strides(),
                out.as_ref().unwrap_or(&nothing),
                upstream.map_or(&nothing, |upstream| &upstream.strides),
            ],
        );
        let is_plain = !is_dense(plan)
            && o.softcap.is_none()
            && o.logit_scale == 1.0
            && pass != Pass::TargetGradient;
        let plain = layouts
            .plain(classes, gradient.is_some())
            .filter(|_| is_plain);
        let form = match plain {
            Some(_) => Form::plain(classes),
            None => Form::general(rows, classes, layouts.classes[0]),
        };

        let others = upstream.and_then(|upstream| upstream.others.as_ref());
        let mut arguments = vec![(&self.memory).into()];
        arguments.extend(self.target());
        arguments.extend(self.ignore());
        arguments.extend([
            Argument::optional(self.weights),
            E::number(o.z_loss),
            (rows as u64).into(),
            (classes as u32).into(),
            Argument::optional(outputs.losses.as_ref()),
            Argument::optional(outputs.maxima.as_ref()),
            Argument::optional(outputs.sums.as_ref()),
            Argument::optional(outputs.dense.as_ref()),
            Argument::optional(outputs.lse.as_ref()),
            Argument::optional(outputs.target_log_prob.as_ref()),
            Argument::optional(outputs.argmax.as_ref()),
            Argument::optional(gradient.map(|gradient| &gradient.out)),
            Argument::optional(upstream.map(|upstream| &upstream.loss)),
            Argument::optional(others.map(|others| &others.0)),
            Argument::optional(others.map(|others| &others.1)),
            (upstream.map_or(0, |upstream| upstream.others_stride) as u64).into(),
            Argument::optional(gradient.and_then(|gradient| gradient.totals)),
            gradient.map_or(1.0, |gradient| gradient.divisor).into(),
        ]);
        let uploaded;
        match (form, plain) {
            (
                Form::General {
                    size,
                    rows_adjacent,
                },
                _,
            ) => {
                uploaded = layouts.levels.upload(self.device())?;
                arguments.extend([
                    E::number(o.logit_scale),
                    E::number(o.softcap.unwrap_or(0.0)),
                    E::number(1.0 - o.label_smoothing),
                    E::number(uniform(plan)),
                ]);
                arguments.extend(layouts.levels.arguments(uploaded.as_ref()));
                arguments.extend(layouts.classes.map(number));
                arguments.extend([Argument::U32(size), Argument::U32(rows_adjacent.into())]);
            }
            (form, strides) => {
                let width = match form {
                    Form::Lanes { width } => width,
                    _ => 0,
                };
                arguments.extend(strides.unwrap_or_default().map(number));
                arguments.push(width.into());
            }
        }
        let kernel = format!(
            "cross_entropy_{}_{}_{}",
            pass.name(),
            form.name(),
            E::SUFFIX
        );
        let threads = form.threads(rows, classes, size_of::<E>());
        // SAFETY: the plan checked the shapes of logits, targets and weights against each other and Candle checked the layouts
        // against the memory; results have a number for each row, the gradient an element for each logit; a target's
        // value is used as an index only after the kernel found it a class. Rows do not share elements that are written.
        unsafe { MODULE.launch(self.device(), &kernel, threads, &arguments) }
    }
}
