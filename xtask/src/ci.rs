//! `cargo xtask ci`: what CI runs, cheapest first.

use crate::cuda_build::CudaBuild;
use crate::exit::{self, Failure};
use crate::features;
use crate::package;
use crate::tools;
use std::ffi::OsString;
use std::process::Command;
use std::time::Instant;

/// One step: a name to call it by, what it proves, and how.
struct Step {
    name: &'static str,
    proves: &'static str,
    run: fn() -> Result<(), Failure>,
}

/// The steps from `cuda-clippy` on compile with CUDA, which takes nvcc for some minutes the first time, and need no GPU.
const STEPS: [Step; 12] = [
    Step {
        name: "fmt",
        proves: "the code is formatted",
        run: || cargo(&["fmt", "--all", "--check"]),
    },
    Step {
        name: "clippy",
        proves: "no lint warns, in any target",
        run: || {
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
        proves: "every crate with features builds without any and with each alone",
        run: features::check,
    },
    Step {
        name: "data",
        proves: "the data set is here, or can be fetched, and its checksums hold",
        run: || xtask("data"),
    },
    Step {
        name: "test",
        proves: "every unit, integration and documentation test passes",
        run: || cargo(&["test", "--release", "--workspace", "--no-fail-fast"]),
    },
    Step {
        name: "doc",
        proves: "the documentation builds and its links lead somewhere",
        run: || {
            let mut command = tools::cargo();
            command
                .args(["doc", "--release", "--workspace", "--no-deps"])
                .env("RUSTDOCFLAGS", "--deny warnings");
            succeed(command)
        },
    },
    Step {
        name: "package",
        proves: "the published crates package and build from what they package",
        run: package::check,
    },
    Step {
        name: "verify-grads",
        proves: "every gradient check and golden value holds",
        run: || xtask("verify-grads"),
    },
    Step {
        name: "cuda-clippy",
        proves: "no lint warns with the feature cuda, in any target",
        run: || {
            let build = CudaBuild::new()?;
            let mut command = build.cargo();
            command
                .args(build.arguments("clippy", &["--all-targets"]))
                .args(["--", "--deny", "warnings"]);
            succeed(command)
        },
    },
    Step {
        name: "cuda-features",
        proves: "the feature cuda of every published crate names all that it needs",
        run: features::check_cuda,
    },
    Step {
        name: "kernels",
        proves: "ptxas spills no register of a kernel in f32 or narrower",
        run: || xtask("kernels"),
    },
    Step {
        name: "emulated-tests",
        proves: "the CUDA backend holds on an emulated driver, which is no evidence of a real GPU",
        run: || xtask("emulated-tests"),
    },
];

/// The crates that other projects depend on.
pub(crate) const PUBLISHED: [&str; 4] = [
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
        text.push_str(&format!("  {:<16}{}\n", step.name, step.proves));
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
        (step.run)().map_err(|failure| failure.within(&format!("step '{}'", step.name)))?;
        summary.push(format!(
            "{} {:.0} s",
            step.name,
            start.elapsed().as_secs_f64()
        ));
    }
    exit::note(&format!("== all steps passed: {}", summary.join(", ")));
    Ok(())
}

/// Runs a command at the root; any status but success is a failed check.
pub(crate) fn succeed(mut command: Command) -> Result<(), Failure> {
    let status = command
        .current_dir(tools::root())
        .status()
        .map_err(|error| Failure::run(format!("cannot start cargo: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::check(status.to_string()))
}

fn cargo(arguments: &[&str]) -> Result<(), Failure> {
    let mut command = tools::cargo();
    command.args(arguments);
    succeed(command)
}

/// A command of this program, which builds what it needs.
fn xtask(command: &str) -> Result<(), Failure> {
    cargo(&["run", "--quiet", "--package", "xtask", "--", command])
}
