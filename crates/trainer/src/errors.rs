//! What can go wrong in a command, and the exit code that each kind has.

use std::path::{Path, PathBuf};

/// A failure that ends a command. Its display is the one message that the user sees.
#[derive(Debug, thiserror::Error)]
pub enum TrainerError {
    /// A run could not go on: a file that cannot be written, a device that is not there.
    #[error("{0}")]
    Run(String),
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// The verb, for example `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The standard output cannot be written.
    #[error("cannot write to the standard output: {0}")]
    Stdout(std::io::Error),
    /// Arguments that do not fit together.
    #[error("{0}")]
    Usage(String),
    /// The data set, or another input file, is missing or malformed.
    #[error("{0}")]
    Data(String),
    /// The loss or the weights stopped being numbers.
    #[error("{0}")]
    Diverged(String),
    /// A check that the user asked for failed.
    #[error("{0}")]
    CheckFailed(String),
    /// The user interrupted the run.
    #[error("{0}")]
    Interrupted(String),
    /// Candle failed.
    #[error("{0}")]
    Candle(#[from] candle_core::Error),
    /// Weights could not be read or written.
    #[error(transparent)]
    Weights(#[from] lenet5::WeightsError),
}

/// The result of everything that can end a command.
pub type Result<T> = std::result::Result<T, TrainerError>;

impl TrainerError {
    /// The exit code: 1 run error, 2 usage, 3 bad data, 4 diverged, 5 a check failed, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Run(_) | Self::Io { .. } | Self::Stdout(_) | Self::Candle(_) => 1,
            Self::Weights(error) => match error {
                lenet5::WeightsError::Write { .. } | lenet5::WeightsError::Candle(_) => 1,
                _ => 3,
            },
            Self::Usage(_) => 2,
            Self::Data(_) => 3,
            Self::Diverged(_) => 4,
            Self::CheckFailed(_) => 5,
            Self::Interrupted(_) => 130,
        }
    }

    /// The message without the backtrace that Candle appends when `RUST_BACKTRACE` is set.
    pub fn message(&self) -> String {
        without_backtrace(&self.to_string()).to_string()
    }

    /// For `map_err` on a file operation.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// `text` up to the first frame of a backtrace: a line that begins, after spaces, with `0: `.
fn without_backtrace(text: &str) -> &str {
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with("0: ") {
            break;
        }
        end += line.len();
    }
    text[..end].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candle_error_loses_its_backtrace_and_keeps_its_message() {
        let inner = candle_core::Error::Msg("shapes differ".into());
        let error = TrainerError::from(candle_core::Error::WithBacktrace {
            inner: Box::new(inner),
            backtrace: Box::new(std::backtrace::Backtrace::force_capture()),
        });
        assert!(
            error.to_string().lines().count() > 1,
            "the backtrace is there"
        );
        assert_eq!(error.message(), "shapes differ");
    }

    #[test]
    fn a_message_of_several_lines_stays_whole() {
        assert_eq!(without_backtrace("tried\n  a\n  b\n"), "tried\n  a\n  b");
    }
}
