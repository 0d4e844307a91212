//! Errors of cross entropy: an argument that does not fit, and a target that names no class.

use candle_core::{DType, Device, Shape};

use crate::pointwise::error::BadArgument;

/// A target index that is neither a class nor `ignore_index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cross_entropy: target of row {row} must be a class, 0 to {}, got {value} with {classes} classes; correct it or name \
     it as ignore_index",
    classes - 1
)]
pub(super) struct TargetOutOfRange {
    /// The row, counted over the batch and the dimensions behind the class axis in row-major order.
    pub(super) row: usize,
    /// The target that came.
    pub(super) value: i64,
    /// The number of classes.
    pub(super) classes: usize,
}

impl From<TargetOutOfRange> for candle_core::Error {
    fn from(error: TargetOutOfRange) -> Self {
        Self::wrap(error)
    }
}

/// An argument that does not fit.
pub(super) fn bad(
    argument: &'static str,
    must: impl Into<String>,
    got: impl Into<String>,
    advice: &'static str,
) -> candle_core::Error {
    BadArgument {
        loss: "cross_entropy",
        argument,
        must: must.into(),
        got: got.into(),
        advice,
    }
    .into()
}

/// A shape that does not fit.
pub(super) fn bad_shape(
    argument: &'static str,
    must: impl Into<String>,
    got: &Shape,
    advice: &'static str,
) -> candle_core::Error {
    bad(argument, must, format!("shape {:?}", got.dims()), advice)
}

/// A dtype that does not fit.
pub(super) fn bad_dtype(
    argument: &'static str,
    must: impl Into<String>,
    got: DType,
    advice: &'static str,
) -> candle_core::Error {
    bad(argument, must, format!("dtype {}", got.as_str()), advice)
}

/// A tensor on another device than the logits.
pub(super) fn bad_device(
    argument: &'static str,
    logits: &Device,
    got: &Device,
) -> candle_core::Error {
    bad(
        argument,
        format!("be on the device of the logits, {:?}", logits.location()),
        format!("{:?}", got.location()),
        "move it with to_device",
    )
}
