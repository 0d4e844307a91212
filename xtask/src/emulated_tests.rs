//! `cargo xtask emulated-tests`: the CUDA backend on a machine without a GPU.
//!
//! Programs and tests are built with the feature `cuda` as for a real GPU, and run on the emulated driver of
//! `tests/emulated-driver`, which executes the kernels on the CPU. What is run is found, not listed: every integration test
//! whose name begins with `cuda`, every `.cu` below `crates/`.

use crate::cuda_build::CudaBuild;
use crate::exit::{self, Failure};
use crate::kernels;
use crate::tools::{self, Executable};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const HELP: &str = "\
Usage: cargo xtask emulated-tests [PART...]

Builds programs and tests with the feature cuda and runs them on an emulated CUDA driver, which executes the kernels on
the CPU and watches every access. Needs g++ and what `cargo xtask cuda-toolchain` brings; no GPU.

Parts, in this order (all of them when none is named):

PARTS
Nothing that passes here is evidence of a real GPU.
";

const NO_EVIDENCE: &str =
    "== on the emulated driver, which runs kernels on the CPU: no evidence of a real GPU";

/// One part: a name to call it by, what it proves, and how.
struct Part {
    name: &'static str,
    proves: &'static str,
    run: fn(&Setup) -> Result<(), Failure>,
}

const PARTS: [Part; 5] = [
    Part {
        name: "no-gpu",
        proves: "a program built with CUDA starts without a GPU, and says why it takes the CPU",
        run: without_a_gpu,
    },
    Part {
        name: "tests",
        proves: "every integration test named cuda passes, those beside kernels in several orders of threads and blocks",
        run: integration_tests,
    },
    Part {
        name: "gradients",
        proves: "the gradient checks in f64 hold on CUDA",
        run: gradients,
    },
    Part {
        name: "mutants",
        proves: "the tests notice each barrier that is left out of a kernel of ours",
        run: mutants,
    },
    Part {
        name: "driver",
        proves: "the emulated driver runs candle's own kernels and catches kernels that are wrong on purpose",
        run: driver,
    },
];

/// The orders in which threads and blocks run. A race is a fault in any order; these find what depends on the order without
/// being a race.
const ORDERS: [&str; 4] = ["forward", "reverse", "shuffle:1", "shuffle:2"];

struct Setup {
    build: CudaBuild,
    /// The command that builds the driver and becomes a program on it.
    emulate: PathBuf,
}

impl Setup {
    fn new() -> Result<Self, Failure> {
        let build = CudaBuild::new()?;
        let emulate = build.emulate()?;
        Ok(Self { build, emulate })
    }

    /// `emulate ARGUMENTS`, with the toolchain in its environment.
    fn emulate(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.emulate);
        self.build.toolchain.apply(command.args(arguments));
        command
    }

    /// A program on the emulated driver.
    fn program(&self, order: &str, program: &Path, arguments: &[&str]) -> Command {
        let mut command = self.emulate(&["run", "--order", order, "--"]);
        command.arg(program).args(arguments);
        command
    }

    fn binary(&self, name: &str) -> Result<PathBuf, Failure> {
        let more = ["--quiet", "--bin", name];
        let built = self.build.executables("build", &more)?;
        built
            .into_iter()
            .find(|executable| executable.name == name)
            .map(|executable| executable.path)
            .ok_or_else(|| Failure::run(format!("cargo built no program named {name}")))
    }
}

pub(crate) fn run(arguments: &[OsString]) -> Result<(), Failure> {
    let names: Vec<_> = arguments.iter().map(|a| a.to_string_lossy()).collect();
    let parts = PARTS
        .iter()
        .map(|part| format!("  {:<11}{}\n", part.name, part.proves))
        .collect::<String>();
    let help = HELP.replace("PARTS\n", &parts);
    if names.iter().any(|name| name == "-h" || name == "--help") {
        return exit::print(&help);
    }
    if let Some(unknown) = names
        .iter()
        .find(|name| PARTS.iter().all(|part| part.name != **name))
    {
        return Err(Failure::usage(format!(
            "unknown part '{unknown}'\n\n{help}"
        )));
    }
    let setup = Setup::new()?;
    let mut summary = Vec::new();
    exit::note(NO_EVIDENCE);
    for part in PARTS
        .iter()
        .filter(|part| names.is_empty() || names.iter().any(|name| name == part.name))
    {
        exit::note(&format!("== {}: {}", part.name, part.proves));
        let start = Instant::now();
        (part.run)(&setup)?;
        summary.push(format!(
            "{} {:.0} s",
            part.name,
            start.elapsed().as_secs_f64()
        ));
    }
    exit::note(&format!("== passed: {}", summary.join(", ")));
    exit::note(NO_EVIDENCE);
    Ok(())
}

/// Runs a command and takes any status but success for a failed check.
fn expect_success(command: &mut Command, what: &str) -> Result<(), Failure> {
    let status = command
        .status()
        .map_err(|error| Failure::run(format!("cannot start {what}: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::check(format!("{what} failed ({status})")))
}

/// A program that takes `--device`, and what it is called with without a GPU.
struct WithoutGpu {
    program: &'static str,
    arguments: &'static [&'static str],
    /// What it ends with on the CPU.
    code: i32,
}

const WITHOUT_GPU: [WithoutGpu; 2] = [
    WithoutGpu {
        program: "verify-grads",
        arguments: &["--filter", "worked_example"],
        code: 0,
    },
    WithoutGpu {
        program: "trainer",
        // The device is chosen before the data is looked for, and to train would prove no more.
        arguments: &["train", "--data", "/dev/null/nowhere"],
        code: 3,
    },
];

/// With link stubs in the driver's place, as on a machine that has none.
fn without_a_gpu(setup: &Setup) -> Result<(), Failure> {
    let toolchain = &setup.build.toolchain;
    let libraries = std::env::join_paths([&toolchain.stubs, &toolchain.libraries])
        .map_err(|error| Failure::run(format!("a folder of the toolchain: {error}")))?;
    for case in &WITHOUT_GPU {
        let WithoutGpu {
            program, arguments, ..
        } = case;
        let path = setup.binary(program)?;
        let run = |device: &str| {
            let output = Command::new(&path)
                .args(*arguments)
                .args(["--device", device])
                .env("LD_LIBRARY_PATH", &libraries)
                .output()
                .map_err(|error| {
                    Failure::run(format!("cannot start {}: {error}", path.display()))
                })?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            exit::note(said.trim_end());
            Ok::<_, Failure>((output.status, said))
        };
        let (status, said) = run("auto")?;
        if status.code() != Some(case.code) || !said.contains("takes the CPU") {
            return Err(Failure::check(format!(
                "{program} --device auto without a GPU ended with {status}, or did not say that it takes the CPU"
            )));
        }
        let (status, said) = run("cuda")?;
        if status.code() != Some(1) || !said.contains("--device") || said.contains("panicked") {
            return Err(Failure::check(format!(
                "{program} --device cuda without a GPU ended with {status} and not with an error that names --device"
            )));
        }
    }
    Ok(())
}

fn integration_tests(setup: &Setup) -> Result<(), Failure> {
    let kernels = kernels::kernel_files()?;
    for test in setup.build.cuda_tests()? {
        let orders = if is_beside_kernels(&test, &kernels) {
            &ORDERS[..]
        } else {
            &ORDERS[2..3]
        };
        for order in orders {
            let what = format!("{} of {}, {order}", test.name, shown(&test.package));
            exit::note(&format!("-- {what}"));
            let mut command = setup.program(order, &test.path, &["--quiet"]);
            expect_success(command.current_dir(&test.package), &what)?;
        }
    }
    Ok(())
}

/// Whether a test is for kernels that lie where it does: those of the module that it is named after, or of its crate where
/// there is no such module. What it launches from elsewhere is tried in every order there.
fn is_beside_kernels(test: &Executable, kernels: &[PathBuf]) -> bool {
    let source = test.package.join("src");
    let module = source.join(test.name.trim_start_matches("cuda_"));
    let beside = if module.is_dir() { module } else { source };
    kernels.iter().any(|file| file.starts_with(&beside))
}

fn gradients(setup: &Setup) -> Result<(), Failure> {
    let verify_grads = setup.binary("verify-grads")?;
    // Those in f32 run the same kernels by another type, which the integration tests compare with the CPU; they would
    // double the minutes.
    let arguments = ["--device", "cuda", "--filter", "/f64", "--json"];
    let output = setup
        .program("forward", &verify_grads, &arguments)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| {
            Failure::run(format!("cannot start {}: {error}", verify_grads.display()))
        })?;
    let summary: Value = serde_json::from_slice(&output.stdout).map_err(|error| {
        Failure::check(format!(
            "verify-grads ended with {} and printed no JSON: {error}",
            output.status
        ))
    })?;
    let cases = || summary["cases"].as_array().into_iter().flatten();
    for case in cases().filter(|case| case["status"] == "failed") {
        exit::note(&format!(
            "FAILED {}: {}",
            case["name"].as_str().unwrap_or("?"),
            case["reason"].as_str().unwrap_or("?")
        ));
    }
    if let Some(elsewhere) = cases().find(|case| case["device"] != "cuda:0") {
        return Err(Failure::check(format!(
            "{} ran on {}",
            elsewhere["name"], elsewhere["device"]
        )));
    }
    exit::note(&format!(
        "{} passed, {} failed, {} skipped on CUDA",
        summary["passed"], summary["failed"], summary["skipped"]
    ));
    if output.status.success() && summary["passed"].as_u64() > Some(0) {
        return Ok(());
    }
    Err(Failure::check(format!(
        "verify-grads --device cuda failed ({})",
        output.status
    )))
}

/// The tests of a crate one after the other, up to the first that fails.
const ONE_AFTER_THE_OTHER: &str = "for test; do \"$test\" --quiet || exit; done";

fn mutants(setup: &Setup) -> Result<(), Failure> {
    let tests = setup.build.cuda_tests()?;
    // The files of a crate together: its tests then run once with every barrier in place, and mutants on all cores.
    let mut files = kernels::kernel_files()?;
    while let Some(first) = files.first() {
        let of_its_crate: Vec<_> = tests
            .iter()
            .filter(|test| first.starts_with(&test.package))
            .collect();
        let Some(package) = of_its_crate.first().map(|test| &test.package) else {
            return Err(Failure::check(format!(
                "{} is tested by no integration test whose name begins with cuda",
                shown(first)
            )));
        };
        let (here, elsewhere) = files
            .into_iter()
            .partition(|file| file.starts_with(package));
        let here: Vec<PathBuf> = here;
        files = elsewhere;
        let what = format!("the kernels of {}", shown(package));
        exit::note(&format!("-- {what} under its tests"));
        let mut command = setup.emulate(&["mutants"]);
        command
            .args(here)
            .args(["--", "sh", "-c", ONE_AFTER_THE_OTHER, "sh"])
            .args(of_its_crate.iter().map(|test| &test.path))
            .current_dir(package);
        expect_success(&mut command, &format!("the mutants of {what}"))?;
    }
    Ok(())
}

fn driver(setup: &Setup) -> Result<(), Failure> {
    let mut cargo = setup.build.cargo();
    cargo.args(
        setup
            .build
            .arguments("test", &["--quiet", "--test", "emulated-driver"]),
    );
    expect_success(&mut cargo, "the emulated driver's own tests")
}

/// A path as a reader of the repository knows it.
fn shown(path: &Path) -> String {
    let relative = path.strip_prefix(tools::root()).unwrap_or(path);
    relative.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_for_the_kernels_of_its_module_or_of_its_crate() {
        let kernels = kernels::kernel_files().unwrap();
        let beside = |package: &str, name: &str| {
            let test = Executable {
                name: name.to_owned(),
                package: tools::root().join("crates").join(package),
                path: PathBuf::new(),
            };
            is_beside_kernels(&test, &kernels)
        };
        assert!(beside("trainer", "cuda_optimizer"));
        assert!(!beside("trainer", "cuda_training"), "it only calls them");
        assert!(beside("losses", "cuda_nll"));
        assert!(beside("vision-ops", "cuda_vision"), "no module of the name");
        assert!(!beside("lenet5", "cuda_model"), "a crate without kernels");
    }
}
