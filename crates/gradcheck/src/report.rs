//! What a check found, for people (`Display`) and for tests (`into_result`).

use crate::Mode;
use crate::error::{Failure, GradCheckError};
use candle_core::DType;

/// One gradient element and what the differences say about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    /// Position of the input among the inputs of the function.
    pub tensor: usize,
    /// Index of the element in its tensor.
    pub index: Vec<usize>,
    /// What the backward pass gave.
    pub analytic: f64,
    /// What the central differences gave.
    pub numeric: f64,
    /// `|analytic - numeric|`.
    pub error: f64,
}

/// What was found about one input tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct InputReport {
    /// Position of the input among the inputs of the function.
    pub tensor: usize,
    /// Its name, as set with [`GradCheck::names`](crate::GradCheck::names).
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its dtype.
    pub dtype: DType,
    /// How the numeric gradient was taken: dense or projection, never auto.
    pub mode: Mode,
    /// Elements that were compared (in projection mode: that took part in the directions).
    pub checked: usize,
    /// Elements that lie on a kink of the function, where any value between the one-sided derivatives is right.
    pub kinks: usize,
    /// Elements left out because their own value is NaN or infinite and cannot be moved.
    pub unmovable: usize,
    /// The largest absolute error; in projection mode that of a direction, divided by the length of the direction.
    pub max_error: f64,
    /// The worst element; in projection mode known only after a disagreement or from the low-precision comparison.
    pub worst: Option<Element>,
}

/// The outcome of a gradient check.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// One entry a differentiable input, in their order.
    pub inputs: Vec<InputReport>,
    /// Everything that is wrong; empty when the check passed.
    pub failures: Vec<Failure>,
    /// How many times the function was evaluated for the numeric gradient.
    pub evaluations: usize,
}

impl Report {
    /// Whether nothing was found wrong.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// The largest absolute error over all inputs.
    #[must_use]
    pub fn max_error(&self) -> f64 {
        // Not `f64::max`: it would drop a NaN.
        let larger = |a: f64, b: f64| if b.is_nan() || b > a { b } else { a };
        self.inputs
            .iter()
            .map(|input| input.max_error)
            .fold(0.0, larger)
    }

    /// The report itself when it passed, else an error whose text names tensor, index, analytic, numeric and error.
    ///
    /// # Errors
    /// [`GradCheckError`] with every finding.
    pub fn into_result(self) -> Result<Self, GradCheckError> {
        if self.passed() {
            Ok(self)
        } else {
            Err(GradCheckError {
                failures: self.failures,
            })
        }
    }
}

/// A table with one line an input, then one line a finding.
impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self
            .inputs
            .iter()
            .map(|i| i.name.len())
            .max()
            .unwrap_or(0)
            .max("tensor".len());
        writeln!(
            f,
            "{:width$}  {:<16} {:<5} {:<10} {:>8} {:>5}  {:>9}  worst element",
            "tensor", "shape", "dtype", "mode", "checked", "kinks", "max error"
        )?;
        for input in &self.inputs {
            let shape = format!("{:?}", input.shape);
            let mode = format!("{:?}", input.mode).to_lowercase();
            write!(
                f,
                "{:width$}  {:<16} {:<5} {:<10} {:>8} {:>5}  {:>9.2e}  ",
                input.name,
                shape,
                input.dtype.as_str(),
                mode,
                input.checked,
                input.kinks,
                input.max_error
            )?;
            match &input.worst {
                Some(w) => writeln!(
                    f,
                    "{:?}: analytic {:e}, numeric {:e}",
                    w.index, w.analytic, w.numeric
                )?,
                None => writeln!(f, "-")?,
            }
        }
        for failure in &self.failures {
            writeln!(f, "FAILED {failure}")?;
        }
        write!(
            f,
            "{} after {} evaluations",
            if self.passed() { "passed" } else { "failed" },
            self.evaluations
        )
    }
}
