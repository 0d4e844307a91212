//! The command `verify-grads`; see `verify-grads --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    verify_grads::cli::run()
}
