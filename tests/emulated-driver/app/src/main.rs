//! A program on `Device::new_cuda(0)` for the emulated driver: candle's own operations, sample kernels, training, and kernels
//! that are wrong on purpose.
//!
//! The tests in `tests/` run it in every order of threads. By hand: `emulate run -- emulated-app ops`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its output is for whoever runs it"
)]

mod candle_ops;
mod compare;
mod control_kernels;
mod own_loss;
mod sample_kernels;
mod training;

use candle_core::{Device, Result};
use std::process::ExitCode;

/// The kernels as PTX: `SAMPLE`, `CONTROLS` and `LOG_COSH`.
#[expect(unreachable_pub, reason = "cudaforge writes `pub`")]
mod ptx {
    include!(concat!(env!("OUT_DIR"), "/ptx.rs"));
}

const HELP: &str = "\
Usage: emulated-app ops | sample | shared-objects | own-loss | train | control NAME

Runs on the emulated driver. Nothing that it prints is evidence of a real GPU.
";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let run = match arguments[..] {
        ["ops"] => candle_ops::run,
        ["sample"] => sample_kernels::run,
        ["shared-objects"] => sample_kernels::shared_objects,
        ["own-loss"] => own_loss::run,
        ["train"] => training::run,
        ["control", name] => return finish(on_device(|device| control_kernels::run(device, name))),
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    finish(on_device(run))
}

fn on_device(run: impl FnOnce(&Device) -> Result<()>) -> Result<()> {
    println!("on the emulated driver: no evidence of a real GPU");
    run(&Device::new_cuda(0)?)
}

fn finish(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
