//! `gpu-bench`: the losses and LeNet-5's training on the first CUDA device, one JSON object a line.
//!
//! `cargo xtask gpu-check` puts it into the folder that goes to a machine with a GPU, beside `python/gpu.py`, which measures
//! PyTorch under the same names. The first line describes the device; a line with `missing` says what could not be measured
//! and why.

mod copy;
mod device;
mod losses;
mod output;
mod timing;
mod training;

use candle_core::Device;
use std::process::ExitCode;

const HELP: &str = "\
Usage: gpu-bench [losses] [training] [--smoke]

Measures on the first CUDA device (CUDA_VISIBLE_DEVICES chooses another) and prints one JSON object a line.

  --smoke  tiny sizes and few repetitions, to see that everything runs; nothing to quote
";

fn main() -> ExitCode {
    let (mut smoke, mut losses, mut training) = (false, false, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "losses" => losses = true,
            "training" => training = true,
            "--smoke" => smoke = true,
            "-h" | "--help" => {
                output::text(HELP);
                return ExitCode::SUCCESS;
            }
            other => {
                output::error(&format!("unexpected '{other}'\n\n{HELP}"));
                return ExitCode::from(2);
            }
        }
    }
    let all = !losses && !training;
    let device = match Device::new_cuda(0) {
        Ok(device) => device,
        Err(error) => {
            output::error(&format!("no CUDA device: {}", output::first_line(&error)));
            return ExitCode::FAILURE;
        }
    };
    let described = device::describe(&device);
    if let Err(error) = described {
        output::error(&format!(
            "the CUDA device does not answer: {}",
            output::first_line(&error)
        ));
        return ExitCode::FAILURE;
    }
    let effort = timing::Effort::new(smoke);
    if losses || all {
        losses::run(&device, &effort);
    }
    if training || all {
        training::run(&device, &effort);
    }
    ExitCode::SUCCESS
}
