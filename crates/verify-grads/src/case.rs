//! A case: one thing to check, with a name to find it by.

use candle_core::{DType, Device, Result};
use candle_gradcheck::Report;

/// What a case found.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All as it should be; the largest error seen.
    Passed {
        /// The largest absolute error.
        max_error: f64,
    },
    /// Something is wrong.
    Failed {
        /// The largest absolute error.
        max_error: f64,
        /// What is wrong, where, and the numbers that show it.
        reason: String,
    },
    /// Nothing was checked.
    Skipped {
        /// Why not.
        reason: String,
    },
}

impl From<Report> for Outcome {
    fn from(report: Report) -> Self {
        let max_error = report.max_error();
        match report.into_result() {
            Ok(_) => Self::Passed { max_error },
            Err(error) => Self::Failed {
                max_error,
                reason: error.to_string(),
            },
        }
    }
}

type Check = Box<dyn Fn(&Device) -> Result<Outcome> + Send + Sync>;

/// One thing to check on a device.
pub struct Case {
    /// Unique name, from the general to the particular: `cross_entropy/fused/weight/none/4x7`.
    pub name: String,
    /// The op or function under test.
    pub op: String,
    /// The dtype of its inputs.
    pub dtype: DType,
    /// Whether it has to run in a process where Candle keeps the graphs of gradients.
    pub keeps_graphs: bool,
    check: Check,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Case({}, {}, {})",
            self.name,
            self.op,
            self.dtype.as_str()
        )
    }
}

impl Case {
    /// A case that runs `check`.
    pub fn new(
        name: impl Into<String>,
        op: impl Into<String>,
        dtype: DType,
        check: impl Fn(&Device) -> Result<Outcome> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            op: op.into(),
            dtype,
            keeps_graphs: false,
            check: Box::new(check),
        }
    }

    /// The same case, for a process where Candle keeps the graphs of gradients: without them there is no second derivative.
    #[must_use]
    pub fn keeping_graphs(self) -> Self {
        Self {
            keeps_graphs: true,
            ..self
        }
    }

    /// Runs the check. An error of the function under test is a failure of the case.
    #[must_use]
    pub fn run(&self, device: &Device) -> Outcome {
        (self.check)(device).unwrap_or_else(|error| Outcome::Failed {
            max_error: f64::NAN,
            reason: format!(
                "the check could not be carried out: {}",
                first_line(&error.to_string())
            ),
        })
    }
}

/// Candle appends a backtrace to its errors when `RUST_BACKTRACE` is set; that is no part of the message.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
