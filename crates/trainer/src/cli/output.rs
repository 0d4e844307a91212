//! Results on the standard output. Unlike `println!`, a full disk or a closed pipe is an error here, not a panic.

use std::io::{ErrorKind, Write};

use crate::errors::{Result, TrainerError};

/// Prints text as it is.
pub(super) fn text(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        // The reader has seen enough, as in `predict ... | head -1`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(TrainerError::Stdout),
    }
}

/// Prints one JSON object and a line end.
pub(super) fn json(value: &impl serde::Serialize) -> Result<()> {
    let line = serde_json::to_string_pretty(value)
        .map_err(|error| TrainerError::Run(format!("cannot write JSON: {error}")))?;
    text(&(line + "\n"))
}
