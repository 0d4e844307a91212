//! `cargo xtask COMMAND`: builds what a command needs in release mode and runs it. Orchestration only.
//!
//! Nothing here knows of Candle, so that `cargo xtask` itself builds in seconds. The commands that train and check live
//! in the crates `trainer` and `verify-grads`; this program builds those binaries and becomes them, so that arguments,
//! output, signals and exit codes are theirs.

mod bench;
mod ci;
mod cuda_build;
mod cuda_stubs;
mod cuda_toolchain;
mod emulated_tests;
mod exit;
mod features;
mod gpu_check;
mod gpu_report;
mod gpu_run;
mod kernels;
mod package;
mod parallel;
mod table;
mod tools;

use exit::Failure;
use std::process::ExitCode;

const HELP: &str = "\
Usage: cargo xtask COMMAND [ARGUMENTS]

Everything is built in release mode first. Every command takes --help.

Train and use LeNet-5 on Fashion-MNIST:
  train              train; prints loss and accuracies each epoch
  eval RUN           accuracy and confusion matrix of a finished run
  predict RUN IMAGE  the three likeliest classes of each image
  compare            train once per loss with the same seed, side by side
  data               find or fetch the data set, print where it is and its checksums

Prove it:
  verify-grads       all gradient checks and golden values
  verify-training    replay a recorded PyTorch training run and compare
  ci                 everything that CI runs, cheapest first

Measure it:
  bench              ours beside candle's own, and PyTorch and JAX with --python

Use a GPU:
  cuda-toolchain     find or bring nvcc 13.0 and print the environment of a `--features cuda` build
  kernels            registers, shared memory and spills of every CUDA kernel, as ptxas reports them
  emulated-tests     the CUDA tests on an emulated driver; no evidence of a real GPU
  gpu-check          build a folder that checks and measures everything on a machine with a GPU

Exit codes: 0 ok, 1 run error, 2 usage, 3 bad data, 4 diverged, 5 a check failed, 130 interrupted.
";

/// A command that a binary of the workspace carries out.
const FORWARDED: [(&str, &str); 7] = [
    ("train", "trainer"),
    ("eval", "trainer"),
    ("predict", "trainer"),
    ("compare", "trainer"),
    ("data", "trainer"),
    ("verify-training", "trainer"),
    ("verify-grads", "verify-grads"),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next().map(|c| c.to_string_lossy().into_owned());
    let rest: Vec<_> = arguments.collect();
    match run(command.as_deref(), &rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: Option<&str>, arguments: &[std::ffi::OsString]) -> Result<(), Failure> {
    match command {
        Some("-h" | "--help" | "help") => exit::print(HELP),
        None => Err(Failure::usage(format!("a command is missing\n\n{HELP}"))),
        Some("ci") => ci::run(arguments),
        Some("bench") => bench::run(arguments),
        Some("cuda-toolchain") => cuda_toolchain::run(arguments),
        Some("kernels") => kernels::run(arguments),
        Some("emulated-tests") => emulated_tests::run(arguments),
        Some("gpu-check") => gpu_check::run(arguments),
        // What the folder of `gpu-check` calls on the machine with the GPU.
        Some("gpu-run") => gpu_run::run(arguments),
        Some(name) => match FORWARDED.iter().find(|(command, _)| *command == name) {
            // `verify-grads` is a binary of its own; the trainer's commands are subcommands.
            Some((_, package @ "verify-grads")) => tools::become_binary(package, arguments.iter()),
            Some((command, package)) => {
                let subcommand = std::ffi::OsString::from(command);
                tools::become_binary(package, std::iter::once(&subcommand).chain(arguments))
            }
            None => Err(Failure::usage(format!(
                "unknown command '{name}'; `cargo xtask --help` lists the commands"
            ))),
        },
    }
}
