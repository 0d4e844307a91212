//! The command `trainer`; see `trainer --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    trainer::environment::prepare();
    trainer::cli::run()
}
