//! The command `trainer`; see `trainer --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    trainer::environment::restart_with_settings();
    trainer::cli::run()
}
