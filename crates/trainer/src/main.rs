//! The command `trainer`; see `trainer --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    trainer::threads::restart_without_spinning_threads();
    trainer::cli::run()
}
