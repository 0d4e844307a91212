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
        "cuda-toolchain",
        "kernels",
        "emulated-tests",
        "gpu-check",
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
fn the_commands_for_a_gpu_refuse_what_they_do_not_know() {
    for (arguments, named) in [
        (&["kernels", "--arch", "90"][..], "sm_90"),
        (&["kernels", "reduce.c"], "reduce.c"),
        (&["emulated-tests", "nonsense"], "gradients"),
        (&["gpu-check", "--compute-cap", "sm_80"], "sm_80"),
        (&["gpu-check", "--out"], "--out"),
        (&["gpu-check", "--python", "python3"], "--smoke"),
        (&["gpu-run"], "gpu-check"),
    ] {
        let output = xtask(arguments);
        let (stdout, stderr) = text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(named), "{arguments:?}: {stderr}");
        assert!(stdout.is_empty(), "{arguments:?}: {stdout}");
    }
}

#[test]
fn a_folder_with_other_files_is_no_place_for_gpu_check() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(folder.path().join("mine"), "").expect("a file");
    let out = folder.path().to_str().expect("a printable path");
    let output = xtask(&["gpu-check", "--out", out]);
    let (_, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(folder.path().join("mine").is_file());
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
