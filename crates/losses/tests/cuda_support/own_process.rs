//! A test in a process of its own, for what Candle reads from the environment.

use std::process::Command;

use candle_core::Result;

/// What makes Candle keep the graph of gradients, read at a thread's first backward.
const KEEP: &str = "CANDLE_GRAD_DO_NOT_DETACH";

/// Whether this process keeps the graphs of gradients. Where it does not, the test of this name has run in one that does, so
/// that no other test's gradients keep theirs.
///
/// # Panics
/// When the test fails there, or is none.
pub(crate) fn keeps_graphs(test: &str) -> Result<bool> {
    if std::env::var_os(KEEP).is_some() {
        return Ok(true);
    }
    let output = Command::new(std::env::current_exe()?)
        .args(["--exact", test])
        .env(KEEP, "1")
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains("1 passed"), "{said}");
    Ok(false)
}
