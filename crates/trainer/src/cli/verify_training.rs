//! `verify-training`: replays a recorded PyTorch run.

use std::path::PathBuf;

use clap::Args;

use super::options::{ComputeArgs, DataFolder};
use super::output;
use crate::dataset;
use crate::errors::{Result, TrainerError};
use crate::trajectory::{self, Golden};

/// Replay a recorded PyTorch run and compare logits, gradients, losses and final weights.
#[derive(Args, Debug)]
pub(super) struct VerifyTrainingArgs {
    /// The recorded run: a safetensors file such as tests/golden/lenet5_trajectory.safetensors
    #[arg(long, value_name = "FILE")]
    golden: PathBuf,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    data: DataFolder,
    /// Print one JSON object on the standard output, everything else on the standard error
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &VerifyTrainingArgs) -> Result<()> {
    let golden = Golden::read(&args.golden)?;
    let (device, _) = args.compute.open()?;
    let dataset = dataset::open(args.data.data.as_deref())?;
    let report = trajectory::verify(&golden, &dataset.data.train, &device)?;
    if args.json {
        output::json(&report)?;
    } else {
        let lines = report.lines().join("\n");
        output::text(&format!("{} steps replayed\n{lines}\n", report.steps))?;
    }
    if report.passed {
        return Ok(());
    }
    Err(TrainerError::CheckFailed(format!(
        "the replay of {} differs from PyTorch's run by more than allowed",
        args.golden.display()
    )))
}
