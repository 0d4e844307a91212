//! How a command ends: exit codes, and output that survives a closed pipe.

use std::io::Write;
use std::process::ExitCode;

/// Why a command did not succeed, with the exit code that scripts see.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Exit code 1: something could not be run.
    pub(crate) fn run(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }

    /// Exit code 2: the call was not of the command's form.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            message: message.into(),
        }
    }

    /// Exit code 5: it ran, and a check failed.
    pub(crate) fn check(message: impl Into<String>) -> Self {
        Self {
            code: 5,
            message: message.into(),
        }
    }

    /// The same failure, said of something that contains it.
    pub(crate) fn within(mut self, what: &str) -> Self {
        self.message = format!("{what} failed: {}", self.message);
        self
    }

    /// Prints the message to standard error and turns into the process's exit code.
    pub(crate) fn report(self) -> ExitCode {
        let _ = writeln!(std::io::stderr(), "error: {}", self.message);
        ExitCode::from(self.code)
    }
}

/// Writes `text` to standard output. A reader that has gone away (`| head`) is not an error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::run(format!(
            "cannot write to standard output: {error}"
        ))),
        _ => Ok(()),
    }
}

/// Writes a line of progress to standard error, which stays apart from what `--json` prints.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
