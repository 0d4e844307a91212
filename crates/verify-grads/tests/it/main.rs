//! The command `verify-grads` as a script sees it: counts, JSON, exit codes, golden files.

mod command;
mod golden;

use std::process::{Command, Output};

/// Runs the command.
fn verify_grads(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_verify-grads"))
        .args(arguments)
        .output()
        .expect("the command starts")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the output is UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("the messages are UTF-8")
}
