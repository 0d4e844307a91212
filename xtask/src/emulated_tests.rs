//! `cargo xtask emulated-tests`: the CUDA backend on a machine without a GPU.
//!
//! Programs and tests are built with the feature `cuda` as for a real GPU, and run on the emulated driver of
//! `tests/emulated-driver`, which executes the kernels on the CPU. What is run is found, not listed: every integration test
//! whose name begins with `cuda`, every `.cu` below `crates/`.

use crate::cuda_build::CudaBuild;
use crate::exit::{self, Failure};
use crate::kernels;
use crate::parallel::in_parallel;
use crate::tools::{self, Executable};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

const HELP: &str = "\
Usage: cargo xtask emulated-tests [PART...]

Builds programs and tests with the feature cuda and runs them on an emulated CUDA driver, which executes the kernels on
the CPU and watches every access. Needs g++ and what `cargo xtask cuda-toolchain` brings; no GPU.

Parts, in this order (all of them when none is named), side by side where nothing forbids it:

PARTS
Nothing that passes here is evidence of a real GPU.
";

const NO_EVIDENCE: &str =
    "== on the emulated driver, which runs kernels on the CPU: no evidence of a real GPU";

/// One part: a name to call it by, what it proves, and how.
struct Part {
    name: &'static str,
    proves: &'static str,
    how: How,
}

enum How {
    Alone(fn(&Setup) -> Result<(), Failure>),
    /// Side by side, with those of the parts next to it that are such too: the driver runs a program's kernels on one thread.
    Jobs(fn(&Setup) -> Result<Vec<Job>, Failure>),
}

const PARTS: [Part; 5] = [
    Part {
        name: "no-gpu",
        proves: "a program built with CUDA starts without a GPU, and says why it takes the CPU",
        how: How::Alone(without_a_gpu),
    },
    // By far the longest job, so it is begun first.
    Part {
        name: "gradients",
        proves: "the gradient checks in f64 hold on CUDA",
        how: How::Jobs(gradients),
    },
    Part {
        name: TESTS,
        proves: "every integration test named cuda passes, those beside kernels in several orders of threads and blocks",
        how: How::Jobs(integration_tests),
    },
    Part {
        name: "mutants",
        proves: "the tests notice each barrier that is left out of a kernel of ours",
        how: How::Jobs(mutants),
    },
    Part {
        name: "driver",
        proves: "the emulated driver runs candle's own kernels and catches kernels that are wrong on purpose",
        how: How::Alone(driver),
    },
];

/// The part that the one of the mutants asks for.
const TESTS: &str = "tests";

/// The orders in which threads and blocks run. A race is a fault in any order; these find what depends on the order without
/// being a race.
const ORDERS: [&str; 4] = ["forward", "reverse", "shuffle:1", "shuffle:2"];

struct Setup {
    build: CudaBuild,
    /// The command that builds the driver and becomes a program on it.
    emulate: PathBuf,
    /// Whether the integration tests are run as they are, in every order.
    with_tests: bool,
}

impl Setup {
    fn new(with_tests: bool) -> Result<Self, Failure> {
        let build = CudaBuild::new()?;
        let emulate = build.emulate()?;
        Ok(Self {
            build,
            emulate,
            with_tests,
        })
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
    let chosen: Vec<_> = PARTS
        .iter()
        .filter(|part| names.is_empty() || names.iter().any(|name| name == part.name))
        .collect();
    let setup = Setup::new(chosen.iter().any(|part| part.name == TESTS))?;
    let mut summary = Vec::new();
    exit::note(NO_EVIDENCE);
    let jobs_both = |a: &&Part, b: &&Part| matches!((&a.how, &b.how), (How::Jobs(_), How::Jobs(_)));
    for parts in chosen.chunk_by(jobs_both) {
        for part in parts {
            exit::note(&format!("== {}: {}", part.name, part.proves));
        }
        let start = Instant::now();
        let mut jobs = Vec::new();
        for part in parts {
            match part.how {
                How::Alone(run) => run(&setup)?,
                How::Jobs(of_part) => jobs.extend(of_part(&setup)?),
            }
        }
        in_parallel(jobs, Job::run)?;
        let names: Vec<_> = parts.iter().map(|part| part.name).collect();
        summary.push(format!(
            "{} {:.0} s",
            names.join(" and "),
            start.elapsed().as_secs_f64()
        ));
    }
    exit::note(&format!("== passed: {}", summary.join(", ")));
    exit::note(NO_EVIDENCE);
    Ok(())
}

/// A command that may run beside others: what it says is shown in one piece when it has ended.
struct Job {
    what: String,
    command: Command,
    /// What to show of the output, or why it is not that of a success.
    judge: fn(&Output) -> Result<String, String>,
}

impl Job {
    fn run(mut self) -> Result<(), Failure> {
        let output = self
            .command
            .output()
            .map_err(|error| Failure::run(format!("cannot start {}: {error}", self.what)))?;
        let judged = (self.judge)(&output);
        let mut text = format!("-- {}\n", self.what);
        let shown = match &judged {
            Ok(shown) => shown.as_str().into(),
            Err(_) => String::from_utf8_lossy(&output.stdout),
        };
        text.push_str(&shown);
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        exit::note(text.trim_end());
        judged
            .map(drop)
            .map_err(|why| Failure::check(format!("{} failed: {why}", self.what)))
    }
}

/// Any status but success is a failure.
fn by_status(output: &Output) -> Result<String, String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(output.status.to_string())
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

fn integration_tests(setup: &Setup) -> Result<Vec<Job>, Failure> {
    let kernels = kernels::kernel_files()?;
    let mut jobs = Vec::new();
    for test in setup.build.cuda_tests()? {
        let orders = if is_beside_kernels(&test, &kernels) {
            &ORDERS[..]
        } else {
            &ORDERS[2..3]
        };
        for order in orders {
            let mut command = setup.program(order, &test.path, &["--quiet"]);
            command.current_dir(&test.package);
            jobs.push(Job {
                what: format!("{} of {}, {order}", test.name, shown(&test.package)),
                command,
                judge: by_status,
            });
        }
    }
    Ok(jobs)
}

/// Whether a test is for kernels that lie where it does: those of the module that it is named after, or of its crate where
/// there is no such module. What it launches from elsewhere is tried in every order there.
fn is_beside_kernels(test: &Executable, kernels: &[PathBuf]) -> bool {
    let source = test.package.join("src");
    let module = source.join(test.name.trim_start_matches("cuda_"));
    let beside = if module.is_dir() { module } else { source };
    kernels.iter().any(|file| file.starts_with(&beside))
}

fn gradients(setup: &Setup) -> Result<Vec<Job>, Failure> {
    let verify_grads = setup.binary("verify-grads")?;
    // Those in f32 run the same kernels by another type, which the integration tests compare with the CPU; they would
    // double the minutes.
    let arguments = ["--device", "cuda", "--filter", "/f64", "--json"];
    Ok(vec![Job {
        what: "verify-grads --device cuda".to_owned(),
        command: setup.program("forward", &verify_grads, &arguments),
        judge: judge_gradients,
    }])
}

fn judge_gradients(output: &Output) -> Result<String, String> {
    let summary: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{} and no JSON: {error}", output.status))?;
    let cases = || summary["cases"].as_array().into_iter().flatten();
    let failed: String = cases()
        .filter(|case| case["status"] == "failed")
        .map(|case| {
            format!(
                "\n  {}: {}",
                case["name"].as_str().unwrap_or("?"),
                case["reason"].as_str().unwrap_or("?")
            )
        })
        .collect();
    if let Some(elsewhere) = cases().find(|case| case["device"] != "cuda:0") {
        return Err(format!(
            "{} ran on {}",
            elsewhere["name"], elsewhere["device"]
        ));
    }
    let counts = format!(
        "{} passed, {} failed, {} skipped on CUDA",
        summary["passed"], summary["failed"], summary["skipped"]
    );
    if output.status.success() && summary["passed"].as_u64() > Some(0) {
        return Ok(counts + "\n");
    }
    Err(format!("{}; {counts}{failed}", output.status))
}

/// The tests of a crate one after the other, up to the first that fails.
const ONE_AFTER_THE_OTHER: &str = "for test; do \"$test\" --quiet || exit; done";

fn mutants(setup: &Setup) -> Result<Vec<Job>, Failure> {
    let mut tests = setup.build.cuda_tests()?;
    tests.sort_by(|a, b| a.name.cmp(&b.name));
    // The files of a crate that have the same tests in the same order together, so that their mutants run on all cores.
    let mut groups: Vec<(&Path, Vec<&Path>, Vec<PathBuf>)> = Vec::new();
    for file in kernels::kernel_files()? {
        let mut of_its_crate: Vec<_> = tests
            .iter()
            .filter(|test| file.starts_with(&test.package))
            .collect();
        let Some(package) = of_its_crate.first().map(|test| test.package.as_path()) else {
            return Err(Failure::check(format!(
                "{} is tested by no integration test whose name begins with cuda",
                shown(&file)
            )));
        };
        let subjects = subjects_of(&file)?;
        // All of them have to pass before a mutant counts as missed; whichever is meant for the file will notice it soonest.
        of_its_crate.sort_by_key(|test| {
            let subject = test.name.trim_start_matches("cuda_");
            !subjects.iter().any(|name| name == subject)
        });
        let paths: Vec<_> = of_its_crate
            .iter()
            .map(|test| test.path.as_path())
            .collect();
        match groups
            .iter_mut()
            .find(|(_, of_group, _)| *of_group == paths)
        {
            Some((_, _, files)) => files.push(file),
            None => groups.push((package, paths, vec![file])),
        }
    }
    let jobs = groups.into_iter().map(|(package, tests, files)| {
        let names: Vec<_> = files.iter().map(|file| shown(file)).collect();
        let mut command = setup.emulate(&["mutants"]);
        if setup.with_tests {
            // As they do here, or all of it fails anyway.
            command.arg("--passes");
        }
        command
            .args(files)
            .args(["--", "sh", "-c", ONE_AFTER_THE_OTHER, "sh"])
            .args(tests)
            .current_dir(package);
        Job {
            what: format!("the mutants of {}", names.join(", ")),
            command,
            judge: by_status,
        }
    });
    Ok(jobs.collect())
}

/// What a kernel file is about: the names, without extension, of itself, of the folders that it lies in and of the headers that
/// it includes by a path, and of their folders.
fn subjects_of(file: &Path) -> Result<Vec<String>, Failure> {
    let text = fs::read_to_string(file)
        .map_err(|error| Failure::run(format!("cannot read {}: {error}", file.display())))?;
    let included = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("#include \"")?.split('"').next())
        .map(Path::new);
    let shown = shown(file);
    let names = [Path::new(&shown)]
        .into_iter()
        .chain(included)
        .flat_map(|path| path.iter().filter_map(|part| Path::new(part).file_stem()))
        .map(|name| name.to_string_lossy().into_owned());
    Ok(names.collect())
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
    fn a_kernel_file_is_about_its_folders_and_what_it_includes() {
        for (file, subject) in [
            (
                "crates/losses/src/cross_entropy/cross_entropy.cu",
                "cross_entropy",
            ),
            ("crates/losses/src/nll/nll.cu", "nll"),
            ("crates/losses/src/mse.cu", "pointwise"),
        ] {
            let subjects = subjects_of(&tools::root().join(file)).unwrap();
            assert!(
                subjects.iter().any(|name| name == subject),
                "{file}: {subjects:?}"
            );
        }
        let mse = subjects_of(&tools::root().join("crates/losses/src/mse.cu")).unwrap();
        assert!(mse.iter().all(|name| name != "nll"), "{mse:?}");
    }

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
