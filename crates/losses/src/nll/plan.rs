//! The arguments of a call, checked.

use super::Nll;
use crate::pointwise::error::BadArgument;
use crate::{EmptyPolicy, Reduction};
use candle_core::{DType, Error, Result, Shape, Tensor};

/// A target that names no class.
#[derive(Debug, thiserror::Error)]
#[error(
    "nll: target of row {row} must be a class, 0 to {}, got {value} with {classes} classes; \
     correct it or name it as ignore_index",
    classes - 1
)]
pub(super) struct TargetOutOfRange {
    /// In the targets' row-major order.
    pub(super) row: usize,
    pub(super) value: i64,
    pub(super) classes: usize,
}

impl From<TargetOutOfRange> for Error {
    fn from(error: TargetOutOfRange) -> Self {
        Self::wrap(error)
    }
}

/// What a call comes down to, whatever its targets are.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) options: Nll,
    /// The log-probabilities' shape, and the class axis in it.
    pub(super) shape: Shape,
    pub(super) class_axis: usize,
    pub(super) classes: usize,
    pub(super) dtype: DType,
    /// The targets' shape: that of the loss without reduction.
    pub(super) rows: Shape,
    pub(super) reduced: bool,
}

impl Plan {
    /// # Errors
    /// Where the arguments do not fit each other, by their name. The targets are not read.
    pub(super) fn new(options: &Nll, input: &Tensor, targets: &Tensor) -> Result<Self> {
        Ok(Self {
            classes: check(options, input, targets)?,
            options: options.clone(),
            shape: input.shape().clone(),
            class_axis: usize::from(input.rank() > 1),
            dtype: input.dtype(),
            rows: targets.shape().clone(),
            reduced: options.reduction != Reduction::None,
        })
    }

    pub(super) fn on_empty_value(&self) -> f64 {
        match self.options.on_empty {
            EmptyPolicy::Nan => f64::NAN,
            EmptyPolicy::Zero => 0.0,
        }
    }
}

/// Checks the tensors and returns the number of classes.
fn check(options: &Nll, input: &Tensor, targets: &Tensor) -> Result<usize> {
    let bad = |argument, must: String, got: String, advice| {
        Err(BadArgument {
            loss: "nll",
            argument,
            must,
            got,
            advice,
        }
        .into())
    };
    let dims = input.dims();
    let (classes, rows) = match dims {
        [] => {
            let must = "have a class axis: (C), (N, C) or (N, C, d1, ...)".to_owned();
            return bad(
                "log_probabilities",
                must,
                "rank 0".to_owned(),
                "add an axis of classes",
            );
        }
        [classes] => (*classes, vec![]),
        [batch, classes, rest @ ..] => (*classes, [&[*batch], rest].concat()),
    };
    let convert = "convert it with `to_dtype`";
    if !matches!(
        input.dtype(),
        DType::F32 | DType::F64 | DType::F16 | DType::BF16
    ) {
        let must = "be f32, f64, f16 or bf16".to_owned();
        return bad(
            "log_probabilities",
            must,
            input.dtype().as_str().to_owned(),
            convert,
        );
    }
    if targets.dims() != rows {
        let must = format!("have shape {rows:?} for log_probabilities of shape {dims:?}");
        let advice = "the class axis is axis 1, or axis 0 of a single row";
        return bad("targets", must, format!("{:?}", targets.dims()), advice);
    }
    use DType::{I16, I32, I64, U8, U32};
    if !matches!(targets.dtype(), U8 | U32 | I16 | I32 | I64) {
        let must = "be class indices of dtype u8, u32, i16, i32 or i64".to_owned();
        return bad(
            "targets",
            must,
            targets.dtype().as_str().to_owned(),
            convert,
        );
    }
    if !targets.device().same_device(input.device()) {
        let must = format!(
            "be on the device of log_probabilities, {:?}",
            input.device().location()
        );
        let got = format!("{:?}", targets.device().location());
        return bad("targets", must, got, "move it with `to_device`");
    }
    if classes == 0 && !rows.contains(&0) {
        let must = "have at least one class".to_owned();
        return bad(
            "log_probabilities",
            must,
            format!("shape {dims:?}"),
            "check the class axis",
        );
    }
    if let Some(weight) = &options.weight {
        if weight.dims() != [classes] {
            let must = format!("have shape [{classes}], one weight for each class");
            return bad(
                "weight",
                must,
                format!("{:?}", weight.dims()),
                "check the number of classes",
            );
        }
        if weight.dtype() != input.dtype() {
            let must = format!(
                "have the dtype of log_probabilities, {}",
                input.dtype().as_str()
            );
            return bad("weight", must, weight.dtype().as_str().to_owned(), convert);
        }
    }
    Ok(classes)
}
