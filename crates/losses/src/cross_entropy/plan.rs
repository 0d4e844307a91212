//! A checked call: the geometry of the logits and the options that apply, all errors raised before any work.

use candle_core::{DType, Result, Tensor};

use super::CrossEntropy;
use super::error::{bad, bad_device, bad_dtype, bad_shape};
use crate::Reduction;

/// How the logits are cut into rows: (batch, classes, inner...), a row for each batch and inner position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) batch: usize,
    pub(super) classes: usize,
    /// The dimensions behind the class axis.
    pub(super) inner: Vec<usize>,
    /// The shape of the targets and of an unreduced loss.
    pub(super) row_shape: Vec<usize>,
}

impl Geometry {
    fn of_logits(dims: &[usize]) -> Self {
        match *dims {
            [classes] => Self {
                batch: 1,
                classes,
                inner: vec![],
                row_shape: vec![],
            },
            [batch, classes, ref inner @ ..] => Self {
                batch,
                classes,
                inner: inner.to_vec(),
                row_shape: std::iter::once(batch)
                    .chain(inner.iter().copied())
                    .collect(),
            },
            [] => unreachable!("the rank is checked before"),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.batch * self.inner.iter().product::<usize>()
    }
}

/// What the targets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TargetKind {
    /// A class for each row.
    Indices,
    /// A weight for each class of each row.
    Probabilities,
}

/// A call whose arguments have been checked.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) options: CrossEntropy,
    pub(super) geometry: Geometry,
    pub(super) kind: TargetKind,
    /// f64 for f64 logits, else f32.
    pub(super) compute: DType,
}

impl Plan {
    pub(super) fn new(
        options: &CrossEntropy,
        logits: &Tensor,
        target: &Tensor,
        kind: TargetKind,
    ) -> Result<Self> {
        check_logits(logits)?;
        let geometry = Geometry::of_logits(logits.dims());
        if !target.device().same_device(logits.device()) {
            return Err(bad_device("targets", logits.device(), target.device()));
        }
        match kind {
            TargetKind::Indices => check_indices(&geometry, logits, target)?,
            TargetKind::Probabilities => check_probabilities(options, logits, target)?,
        }
        if let Some(weight) = &options.weight {
            check_weight(weight, logits, geometry.classes)?;
        }
        check_numbers(options)?;
        let compute = if logits.dtype() == DType::F64 {
            DType::F64
        } else {
            DType::F32
        };
        Ok(Self {
            options: options.clone(),
            geometry,
            kind,
            compute,
        })
    }

    /// The shape of the reduced loss.
    pub(super) fn loss_shape(&self) -> &[usize] {
        match self.options.reduction {
            Reduction::None => &self.geometry.row_shape,
            Reduction::Mean | Reduction::Sum => &[],
        }
    }
}

fn check_logits(logits: &Tensor) -> Result<()> {
    if logits.rank() == 0 {
        return Err(bad_shape(
            "logits",
            "have shape (classes), (batch, classes) or (batch, classes, d1, ...)",
            logits.shape(),
            "reshape it",
        ));
    }
    if !matches!(
        logits.dtype(),
        DType::F32 | DType::F64 | DType::F16 | DType::BF16
    ) {
        return Err(bad_dtype(
            "logits",
            "be f32, f64, f16 or bf16",
            logits.dtype(),
            "convert it with to_dtype",
        ));
    }
    let classes = logits.dims()[logits.rank().min(2) - 1];
    if classes == 0 {
        return Err(bad_shape(
            "logits",
            "have at least one class",
            logits.shape(),
            "check the model's output",
        ));
    }
    Ok(())
}

fn check_indices(geometry: &Geometry, logits: &Tensor, targets: &Tensor) -> Result<()> {
    if !matches!(
        targets.dtype(),
        DType::U8 | DType::U32 | DType::I16 | DType::I32 | DType::I64
    ) {
        return Err(bad_dtype(
            "targets",
            "be u8, u32, i16, i32 or i64",
            targets.dtype(),
            "convert class indices with to_dtype, or use forward_probabilities",
        ));
    }
    if targets.dims() != geometry.row_shape {
        return Err(bad_shape(
            "targets",
            format!(
                "have shape {:?} for logits of shape {:?}",
                geometry.row_shape,
                logits.dims()
            ),
            targets.shape(),
            "the class axis of the logits is 1 (0 where there is no batch) and the targets lack it",
        ));
    }
    Ok(())
}

fn check_probabilities(
    options: &CrossEntropy,
    logits: &Tensor,
    probabilities: &Tensor,
) -> Result<()> {
    if let Some(index) = options.ignore_index {
        return Err(bad(
            "ignore_index",
            "not be set with probabilities",
            index.to_string(),
            "give the rows to leave out probabilities of 0",
        ));
    }
    if probabilities.dtype() != logits.dtype() {
        return Err(bad_dtype(
            "probabilities",
            format!("have the dtype of the logits, {}", logits.dtype().as_str()),
            probabilities.dtype(),
            "convert them with to_dtype, or use forward for class indices",
        ));
    }
    if probabilities.dims() != logits.dims() {
        return Err(bad_shape(
            "probabilities",
            format!("have the shape of the logits, {:?}", logits.dims()),
            probabilities.shape(),
            "reshape or broadcast them",
        ));
    }
    Ok(())
}

fn check_weight(weight: &Tensor, logits: &Tensor, classes: usize) -> Result<()> {
    if weight.dims() != [classes] {
        return Err(bad_shape(
            "weight",
            format!("have shape [{classes}], one weight a class"),
            weight.shape(),
            "give a weight to each class",
        ));
    }
    if !weight.dtype().is_float() {
        return Err(bad_dtype(
            "weight",
            "be a float type",
            weight.dtype(),
            "convert it with to_dtype",
        ));
    }
    if !weight.device().same_device(logits.device()) {
        return Err(bad_device("weight", logits.device(), weight.device()));
    }
    Ok(())
}

fn check_numbers(o: &CrossEntropy) -> Result<()> {
    let check = |argument, value: f64, fits: bool, must: &str, advice| {
        if fits && value.is_finite() {
            Ok(())
        } else {
            Err(bad(argument, must, value.to_string(), advice))
        }
    };
    let smoothing = o.label_smoothing;
    check(
        "label_smoothing",
        smoothing,
        (0.0..=1.0).contains(&smoothing),
        "be within [0, 1]",
        "0 leaves the targets as they are",
    )?;
    check(
        "z_loss",
        o.z_loss,
        o.z_loss >= 0.0,
        "be finite and at least 0",
        "0 leaves it out",
    )?;
    check(
        "logit_scale",
        o.logit_scale,
        true,
        "be finite",
        "1 leaves the logits as they are",
    )?;
    if let Some(cap) = o.softcap {
        check(
            "softcap",
            cap,
            cap > 0.0,
            "be finite and above 0",
            "leave it out to have no cap",
        )?;
    }
    if let Some(items) = o.num_items {
        check(
            "num_items",
            items,
            items > 0.0,
            "be finite and above 0",
            "give the number of items that the sum is divided by",
        )?;
        if o.reduction == Reduction::None {
            return Err(bad(
                "num_items",
                "not be set with Reduction::None",
                items.to_string(),
                "use Reduction::Mean, or divide the losses yourself",
            ));
        }
    }
    Ok(())
}
