//! Golden files: values and gradients that PyTorch computed in float64, to compare ours with.
//!
//! A file is `{format, source, cases: [...]}`; [`mod@file`] has the fields of a case. Each case becomes two: the fused and the
//! composed form in f64 against the recorded numbers, within 1e-10 (absolute plus relative, NaN equal to NaN), and the
//! fused form in f32 against the composed one in f64 at the same, rounded, inputs, within 1e-5. A case whose op or option
//! is unknown here is skipped with the reason, so that a file may be ahead of the code.

mod compare;
mod cross_entropy;
mod fields;
pub mod file;
mod ops;
mod pointwise;

use crate::case::{Case, Outcome};
use candle_core::DType;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The golden file of this repository, compiled in.
const BUILT_IN: &str = include_str!("../../../../tests/golden/losses.json");

/// A golden file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("golden file {}: {problem}", path.display())]
pub struct GoldenError {
    /// The file.
    pub path: PathBuf,
    /// Field, what was expected and what was found.
    pub problem: String,
}

/// The cases of the golden file at `path`.
///
/// # Errors
/// When the file cannot be read or is malformed; the message names path, case, field, what was expected and found.
pub fn read(path: &Path) -> Result<Vec<Case>, GoldenError> {
    let failed = |problem| GoldenError {
        path: path.to_path_buf(),
        problem,
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| failed(format!("cannot be read: {error}")))?;
    let stem = path
        .file_stem()
        .map_or_else(|| "golden".into(), |stem| stem.to_string_lossy());
    cases(&text, &stem).map_err(failed)
}

/// The cases of the golden file that is compiled in.
///
/// # Errors
/// Never, unless the file in the repository is damaged.
pub fn built_in() -> Result<Vec<Case>, GoldenError> {
    cases(BUILT_IN, "losses").map_err(|problem| GoldenError {
        path: "tests/golden/losses.json".into(),
        problem,
    })
}

fn cases(text: &str, stem: &str) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    for golden in file::parse(text)? {
        let (name, op, golden) = (golden.name.clone(), golden.op.clone(), Arc::new(golden));
        let exact = golden.clone();
        cases.push(Case::new(
            format!("golden/{stem}/{name}/f64"),
            op.clone(),
            DType::F64,
            move |device| ops::against_pytorch(&exact, device),
        ));
        if ops::find(&golden).is_ok() {
            cases.push(Case::new(
                format!("golden/{stem}/{name}/f32"),
                op,
                DType::F32,
                move |device| ops::in_single_precision(&golden, device),
            ));
        }
    }
    Ok(cases)
}

/// A golden case that cannot be run here.
fn skipped(reason: String) -> Outcome {
    Outcome::Skipped { reason }
}

#[cfg(test)]
mod tests;
