//! What can be wrong with a gradient, one kind each, and the error made of them.

use crate::InputLayout;

/// One finding about one input tensor: what is wrong, where, and the numbers that show it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // The fields say in their names what the message says in words.
pub enum Failure {
    /// The numeric estimate has converged and the analytic gradient is another number.
    #[error(
        "gradient of {tensor} at {index:?} is wrong{}: analytic {analytic:e}, numeric {numeric:e}, error {error:e} \
         (tolerance {tolerance:e}); {wrong} of {checked} checked elements are wrong",
        of_output(output)
    )]
    Mismatch {
        tensor: String,
        index: Vec<usize>,
        /// The output element (row-major) whose gradient is wrong; none for the contraction of all outputs.
        output: Option<usize>,
        analytic: f64,
        numeric: f64,
        error: f64,
        tolerance: f64,
        wrong: usize,
        checked: usize,
    },
    /// A random direction disagrees although no single element could be made responsible: many small errors.
    #[error(
        "gradient of {tensor} is wrong along a random direction: analytic {analytic:e}, numeric {numeric:e}, error \
         {error:e} (tolerance {tolerance:e}); the largest share comes from index {index:?}"
    )]
    Projection {
        tensor: String,
        index: Vec<usize>,
        analytic: f64,
        numeric: f64,
        error: f64,
        tolerance: f64,
    },
    /// The backward pass left no gradient although the output depends on the tensor: the graph is cut.
    #[error(
        "gradient of {tensor} is missing (the graph is cut before it), but the numeric gradient at {index:?} is \
         {numeric:e}"
    )]
    Missing {
        tensor: String,
        index: Vec<usize>,
        numeric: f64,
    },
    /// Candle's backward pass panicked because an op inside the function returned no gradient for its argument.
    #[error(
        "the backward pass panicked with {layout} inputs, as it does when an op returns no gradient: {message}"
    )]
    BackwardPanicked {
        layout: InputLayout,
        message: String,
    },
    /// The analytic gradient holds NaN or an infinity.
    #[error(
        "gradient of {tensor} at {index:?} is not finite: analytic {analytic}, numeric {numeric:e}"
    )]
    NotFinite {
        tensor: String,
        index: Vec<usize>,
        analytic: f64,
        numeric: f64,
    },
    /// The function itself is not finite around the point, so that there is nothing to compare with.
    #[error(
        "the function is not finite around {tensor} at {index:?}: numeric {numeric}, analytic {analytic:e}"
    )]
    FunctionNotFinite {
        tensor: String,
        index: Vec<usize>,
        analytic: f64,
        numeric: f64,
    },
    /// The gradient has another shape than its tensor.
    #[error(
        "gradient of {tensor} has shape {found:?}, expected the shape of the tensor, {expected:?}"
    )]
    Shape {
        tensor: String,
        expected: Vec<usize>,
        found: Vec<usize>,
    },
    /// The gradient has another dtype than its tensor.
    #[error("gradient of {tensor} has dtype {found}, expected the dtype of the tensor, {expected}")]
    DType {
        tensor: String,
        expected: &'static str,
        found: &'static str,
    },
    /// A second backward pass over the same graph, or over a new one, gave other bits.
    #[error(
        "gradient of {tensor} at {index:?} changes from one backward pass to the next: {first:e}, then {second:e}"
    )]
    NotRepeatable {
        tensor: String,
        index: Vec<usize>,
        first: f64,
        second: f64,
    },
    /// An upstream gradient of zeros left something else than zeros.
    #[error(
        "gradient of {tensor} at {index:?} is {value:e} under an upstream gradient of zeros, expected 0"
    )]
    ZeroUpstream {
        tensor: String,
        index: Vec<usize>,
        value: f64,
    },
    /// Doubling the upstream gradient did not double the gradient.
    #[error(
        "gradient of {tensor} at {index:?} goes from {single:e} to {doubled:e} when the upstream gradient is doubled, \
         expected {}", 2.0 * single
    )]
    DoubledUpstream {
        tensor: String,
        index: Vec<usize>,
        single: f64,
        doubled: f64,
    },
    /// Another memory layout of the same values gives another gradient.
    #[error(
        "gradient of {tensor} at {index:?} is {contiguous:e} for contiguous and {strided:e} for {layout} inputs"
    )]
    Layout {
        tensor: String,
        index: Vec<usize>,
        layout: InputLayout,
        contiguous: f64,
        strided: f64,
    },
    /// The function refuses another memory layout of the same values.
    #[error("the function refuses {layout} inputs: {message}")]
    LayoutRefused {
        layout: InputLayout,
        message: String,
    },
    /// The gradient depends on which of the other inputs track gradients.
    #[error(
        "gradient of {tensor} at {index:?} is {together:e} when all inputs track gradients and {alone:e} when it \
         alone does"
    )]
    DependsOnTracking {
        tensor: String,
        index: Vec<usize>,
        together: f64,
        alone: f64,
    },
    /// So many elements lie on kinks that the check says little; move the point or raise `max_kinks`.
    #[error(
        "{kinks} of {checked} checked elements of {tensor} lie on kinks, more than the share of {allowed} allowed"
    )]
    TooManyKinks {
        tensor: String,
        kinks: usize,
        checked: usize,
        allowed: f64,
    },
}

fn of_output(output: &Option<usize>) -> String {
    output.map_or_else(String::new, |o| format!(" for output element {o}"))
}

impl Failure {
    /// The stable name of the kind, for machine-readable reports.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Mismatch { .. } => "mismatch",
            Self::Projection { .. } => "projection",
            Self::Missing { .. } => "missing",
            Self::BackwardPanicked { .. } => "backward_panicked",
            Self::NotFinite { .. } => "not_finite",
            Self::FunctionNotFinite { .. } => "function_not_finite",
            Self::Shape { .. } => "shape",
            Self::DType { .. } => "dtype",
            Self::NotRepeatable { .. } => "not_repeatable",
            Self::ZeroUpstream { .. } => "zero_upstream",
            Self::DoubledUpstream { .. } => "doubled_upstream",
            Self::Layout { .. } => "layout",
            Self::LayoutRefused { .. } => "layout_refused",
            Self::DependsOnTracking { .. } => "depends_on_tracking",
            Self::TooManyKinks { .. } => "too_many_kinks",
        }
    }
}

/// A gradient check that found something. The text names tensor, index, analytic, numeric and error of every finding.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("gradient check failed: {}", .failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct GradCheckError {
    /// The findings, never empty.
    pub failures: Vec<Failure>,
}

impl From<GradCheckError> for candle_core::Error {
    fn from(error: GradCheckError) -> Self {
        Self::wrap(error)
    }
}

/// Why a check could not be carried out at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum SetupError {
    /// No input can have a gradient.
    #[error(
        "inputs: none of the {count} input tensors is differentiable; expected at least one of dtype f64, f32, f16 or \
         bf16 (or pass other indices to `differentiable`)"
    )]
    NothingToCheck { count: usize },
    /// `differentiable` names an input that does not exist.
    #[error("differentiable: input {index} does not exist, the function has {count} inputs (0 to {})", count.saturating_sub(1))]
    NoSuchInput { index: usize, count: usize },
    /// `differentiable` names an input of a dtype without gradients.
    #[error("differentiable: {tensor} has dtype {dtype}, expected one of f64, f32, f16 and bf16")]
    NotDifferentiable { tensor: String, dtype: &'static str },
    /// The function returned integers.
    #[error("function: the output has dtype {dtype}, expected one of f64, f32, f16 and bf16")]
    IntegerOutput { dtype: &'static str },
    /// The function and its f64 evaluation returned different shapes.
    #[error(
        "function: the output has shape {low:?} in the input dtype and {reference:?} in the f64 evaluation, expected the same"
    )]
    OutputShapes {
        low: Vec<usize>,
        reference: Vec<usize>,
    },
    /// An option is out of range.
    #[error("{option}: {value} is out of range, expected {expected}")]
    Option {
        option: &'static str,
        value: f64,
        expected: &'static str,
    },
    /// Second derivatives were asked for in a thread whose gradients Candle detaches.
    #[error(
        "second order: Candle detaches gradients in this thread, so second derivatives would be silently wrong; set \
         the environment variable CANDLE_GRAD_DO_NOT_DETACH=1 before the process starts (Candle reads it once a \
         thread, at the thread's first backward pass)"
    )]
    Detached,
}

impl From<SetupError> for candle_core::Error {
    fn from(error: SetupError) -> Self {
        Self::wrap(error)
    }
}
