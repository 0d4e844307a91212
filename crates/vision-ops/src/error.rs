//! The errors of this crate: each names the op, the argument, what was expected, what came and what to do.

use candle_core::{DType, Error};

/// What was wrong with a call. It reaches the caller inside [`candle_core::Error::Wrapped`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VisionOpError {
    /// A tensor has the wrong number of dimensions.
    #[error(
        "{op}: `{argument}` must have {expected} dimensions {layout}, got shape {got:?}; reshape it"
    )]
    Rank {
        /// The op that was called.
        op: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// How many dimensions it must have.
        expected: usize,
        /// What the dimensions mean, as in `(N, C, H, W)`.
        layout: &'static str,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// A tensor's shape does not fit the other arguments.
    #[error("{op}: `{argument}` must have shape {expected}, got {got:?}; {help}")]
    Shape {
        /// The op that was called.
        op: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// The shape that was expected.
        expected: String,
        /// The shape that came.
        got: Vec<usize>,
        /// What to do.
        help: &'static str,
    },
    /// A tensor has a dtype that the op does not take here.
    #[error("{op}: `{argument}` must be {expected}, got {got:?}; convert it with `to_dtype`")]
    DType {
        /// The op that was called.
        op: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// The dtypes that are taken.
        expected: String,
        /// The dtype that came.
        got: DType,
    },
    /// A size, stride or other number is out of range.
    #[error("{op}: `{argument}` must be {expected}, got {got}")]
    Parameter {
        /// The op that was called.
        op: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// The range that is taken.
        expected: String,
        /// The value that came.
        got: String,
    },
    /// Two tensors live on different devices.
    #[error(
        "{op}: `{argument}` must be on the device of `{reference}` ({expected}), got {got}; move it with `to_device`"
    )]
    Device {
        /// The op that was called.
        op: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// The argument whose device counts.
        reference: &'static str,
        /// The device that was expected.
        expected: String,
        /// The device that came.
        got: String,
    },
}

impl From<VisionOpError> for Error {
    fn from(error: VisionOpError) -> Self {
        Error::wrap(error)
    }
}

/// The error of a backward pass that finds nothing of what its forward pass keeps for it.
pub(crate) fn backward_too_early(op: &str) -> Error {
    Error::Msg(format!("{op}: backward was called before forward"))
}
