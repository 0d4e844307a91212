//! Lines on standard output. A reader that has gone away ends nothing: the measurements are the point.

use serde_json::{Value, json};
use std::io::Write;

/// Prints one JSON object.
pub(crate) fn line(value: &Value) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{value}").and_then(|()| stdout.flush());
}

/// Prints that a measurement could not be taken.
pub(crate) fn missing(group: &str, function: &str, shape: &str, dtype: &str, reason: &str) {
    line(&json!({
        "missing": reason, "group": group, "function": function, "shape": shape, "dtype": dtype,
    }));
}

/// Prints plain text.
pub(crate) fn text(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints an error to standard error.
pub(crate) fn error(text: &str) {
    let _ = writeln!(std::io::stderr(), "error: {text}");
}

/// The message without the backtrace that Candle appends on request.
pub(crate) fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().into()
}
