//! The command line as a script sees it: help, usage errors, exit codes.

use crate::workspace::{cargo, text};
use std::process::Output;

fn xtask(arguments: &[&str]) -> Output {
    cargo()
        .args(["run", "--quiet", "--package", "xtask", "--"])
        .args(arguments)
        .output()
        .expect("cargo starts")
}

#[test]
fn help_lists_every_command_of_the_design() {
    let output = xtask(&["--help"]);
    let (stdout, _) = text(&output);
    assert_eq!(output.status.code(), Some(0));
    for command in [
        "train",
        "eval",
        "predict",
        "compare",
        "verify-grads",
        "verify-training",
        "data",
        "bench",
        "ci",
    ] {
        assert!(
            stdout.contains(&format!("  {command} ")),
            "{command} is missing in:\n{stdout}"
        );
    }
}

#[test]
fn an_unknown_command_is_a_usage_error_that_names_it() {
    let output = xtask(&["trian"]);
    let (stdout, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.contains("unknown command 'trian'"), "{stderr}");
    assert!(stdout.is_empty(), "{stdout}");
}

#[test]
fn an_unknown_step_of_ci_is_a_usage_error_that_lists_the_steps() {
    let output = xtask(&["ci", "nonsense"]);
    let (_, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr.contains("unknown step 'nonsense'") && stderr.contains("clippy"),
        "{stderr}"
    );
}

#[test]
fn a_reader_that_goes_away_is_not_an_error() {
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            "cargo run --quiet --package xtask -- --help 2>&1 | head -n 1",
        ])
        .current_dir(crate::workspace::root())
        .output()
        .expect("a shell starts");
    let (stdout, _) = text(&output);
    assert!(stdout.starts_with("Usage:"), "{stdout}");
    assert!(!stdout.contains("panicked"), "{stdout}");
}
