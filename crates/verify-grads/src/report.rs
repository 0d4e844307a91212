//! Results of the cases: one line each in a table, or one JSON object.

use crate::case::{Case, Outcome};
use crate::device;
use candle_core::Device;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Checked and right.
    Passed,
    /// Checked and wrong.
    Failed,
    /// Not checked.
    Skipped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        })
    }
}

/// The result of one case, as `--json` prints it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CaseResult {
    /// The name of the case.
    pub name: String,
    /// The op under test.
    pub op: String,
    /// The dtype of the inputs.
    pub dtype: String,
    /// Where it ran, as `--device` spells it.
    pub device: String,
    /// How it ended.
    pub status: Status,
    /// The largest absolute error; none where nothing was compared or the error is NaN.
    pub max_error: Option<f64>,
    /// What is wrong, or why it was skipped; none for a case that passed.
    pub reason: Option<String>,
}

impl CaseResult {
    /// Runs `case` on `device`.
    #[must_use]
    pub fn of(case: &Case, device: &Device) -> Self {
        let (status, max_error, reason) = match case.run(device) {
            Outcome::Passed { max_error } => (Status::Passed, Some(max_error), None),
            Outcome::Failed { max_error, reason } => {
                (Status::Failed, Some(max_error), Some(reason))
            }
            Outcome::Skipped { reason } => (Status::Skipped, None, Some(reason)),
        };
        Self {
            name: case.name.clone(),
            op: case.op.clone(),
            dtype: case.dtype.as_str().to_string(),
            device: device::name(device),
            status,
            max_error: max_error.filter(|error| error.is_finite()),
            reason,
        }
    }
}

/// The widths of the table's columns.
#[derive(Debug, Clone, Copy)]
pub struct Widths {
    name: usize,
    op: usize,
}

impl Widths {
    /// Wide enough for all of `cases`.
    #[must_use]
    pub fn of<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Self {
        let start = Self {
            name: "name".len(),
            op: "op".len(),
        };
        cases.into_iter().fold(start, |widths, case| Self {
            name: widths.name.max(case.name.len()),
            op: widths.op.max(case.op.len()),
        })
    }

    /// The line above the cases.
    #[must_use]
    pub fn header(&self) -> String {
        format!(
            "{:name$}  {:op$}  dtype  max error  status",
            "name",
            "op",
            name = self.name,
            op = self.op
        )
    }

    /// The line of one case.
    #[must_use]
    pub fn line(&self, result: &CaseResult) -> String {
        let error = result
            .max_error
            .map_or_else(|| "-".to_string(), |error| format!("{error:.1e}"));
        let reason = result
            .reason
            .as_ref()
            .map_or_else(String::new, |reason| format!(": {reason}"));
        format!(
            "{:name$}  {:op$}  {:<5}  {error:>9}  {}{reason}",
            result.name,
            result.op,
            result.dtype,
            result.status,
            name = self.name,
            op = self.op
        )
    }
}

/// All results, as `--json` prints them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed.
    pub failed: usize,
    /// Cases that were not checked.
    pub skipped: usize,
    /// Every case.
    pub cases: Vec<CaseResult>,
}

impl Summary {
    /// Adds a result.
    pub fn push(&mut self, result: CaseResult) {
        match result.status {
            Status::Passed => self.passed += 1,
            Status::Failed => self.failed += 1,
            Status::Skipped => self.skipped += 1,
        }
        self.cases.push(result);
    }
}

/// The closing line.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}
