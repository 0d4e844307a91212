//! `cargo xtask ci`: what CI runs, cheapest first.

use crate::exit::{self, Failure};
use crate::tools;
use std::ffi::OsString;
use std::process::Command;
use std::time::Instant;

/// One step: a name to call it by, what it proves, and the command.
struct Step {
    name: &'static str,
    proves: &'static str,
    command: fn() -> Command,
}

const STEPS: [Step; 8] = [
    Step {
        name: "fmt",
        proves: "the code is formatted",
        command: || cargo(&["fmt", "--all", "--check"]),
    },
    Step {
        name: "clippy",
        proves: "no lint warns, in any target",
        command: || {
            cargo(&[
                "clippy",
                "--release",
                "--workspace",
                "--all-targets",
                "--",
                "--deny",
                "warnings",
            ])
        },
    },
    Step {
        name: "features",
        proves: "the data crate builds without the hub",
        command: || {
            cargo(&[
                "check",
                "--release",
                "--package",
                "fashion-mnist",
                "--no-default-features",
            ])
        },
    },
    Step {
        name: "data",
        proves: "the data set is here, or can be fetched, and its checksums hold",
        command: || xtask("data"),
    },
    Step {
        name: "test",
        proves: "every unit, integration and documentation test passes",
        command: || cargo(&["test", "--release", "--workspace", "--no-fail-fast"]),
    },
    Step {
        name: "doc",
        proves: "the documentation builds and its links lead somewhere",
        command: || {
            let mut command = cargo(&["doc", "--release", "--workspace", "--no-deps"]);
            command.env("RUSTDOCFLAGS", "--deny warnings");
            command
        },
    },
    Step {
        name: "package",
        proves: "the published crates package and build from what they package",
        command: || {
            let mut arguments = vec!["package", "--allow-dirty"];
            for package in PUBLISHED {
                arguments.extend(["--package", package]);
            }
            cargo(&arguments)
        },
    },
    Step {
        name: "verify-grads",
        proves: "every gradient check and golden value holds",
        command: || xtask("verify-grads"),
    },
];

/// The crates that other projects depend on.
const PUBLISHED: [&str; 4] = [
    "candle-simd",
    "candle-losses",
    "candle-gradcheck",
    "candle-vision-ops",
];

fn help() -> String {
    let mut text = String::from(
        "Usage: cargo xtask ci [STEP...]\n\n\
         Runs every step in this order and stops at the first that fails; with names, those steps alone.\n\n",
    );
    for step in &STEPS {
        text.push_str(&format!("  {:<14}{}\n", step.name, step.proves));
    }
    text
}

pub(crate) fn run(arguments: &[OsString]) -> Result<(), Failure> {
    let names: Vec<_> = arguments.iter().map(|a| a.to_string_lossy()).collect();
    if names.iter().any(|name| name == "-h" || name == "--help") {
        return exit::print(&help());
    }
    if let Some(unknown) = names
        .iter()
        .find(|name| STEPS.iter().all(|step| step.name != **name))
    {
        return Err(Failure::usage(format!(
            "unknown step '{unknown}'\n\n{}",
            help()
        )));
    }
    let chosen = STEPS
        .iter()
        .filter(|step| names.is_empty() || names.iter().any(|n| n == step.name));
    let mut summary = Vec::new();
    for step in chosen {
        exit::note(&format!("== {}: {}", step.name, step.proves));
        let start = Instant::now();
        let status = (step.command)()
            .current_dir(tools::root())
            .status()
            .map_err(|error| Failure::run(format!("cannot start step '{}': {error}", step.name)))?;
        if !status.success() {
            return Err(Failure::check(format!(
                "step '{}' failed ({status})",
                step.name
            )));
        }
        summary.push(format!(
            "{} {:.0} s",
            step.name,
            start.elapsed().as_secs_f64()
        ));
    }
    exit::note(&format!("== all steps passed: {}", summary.join(", ")));
    Ok(())
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = tools::cargo();
    command.args(arguments);
    command
}

/// A command of this program, which builds what it needs.
fn xtask(command: &str) -> Command {
    let mut program = tools::cargo();
    program.args(["run", "--quiet", "--package", "xtask", "--", command]);
    program
}
