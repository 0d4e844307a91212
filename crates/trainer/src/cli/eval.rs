//! `eval RUN`: accuracy, accuracy per class and confusion matrix on the test images.

use std::path::PathBuf;

use clap::Args;
use fashion_mnist::CLASSES;
use serde_json::json;

use super::options::{ComputeArgs, DatasetArgs};
use super::output;
use crate::errors::{Result, TrainerError};
use crate::interrupt;
use crate::metrics::fraction;
use crate::run_dir::RunDir;
use crate::training::evaluate;

/// Measure a run's model on the test images: accuracy, accuracy per class, confusion matrix.
#[derive(Args, Debug)]
pub(super) struct EvalArgs {
    /// The run's folder
    run: PathBuf,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    data: DatasetArgs,
    /// Print one JSON object on the standard output, everything else on the standard error
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &EvalArgs) -> Result<()> {
    interrupt::listen()?;
    let run = RunDir::open(&args.run)?;
    let (device, _) = args.compute.open()?;
    let (model, weights) = run.load_model(&device)?;
    let dataset = args.data.open()?;
    let confusion = evaluate(&model, &dataset.data.test, interrupt::requested)?
        .ok_or_else(|| TrainerError::Interrupted("interrupted".into()))?;
    if args.json {
        let classes: Vec<_> = CLASSES
            .iter()
            .enumerate()
            .map(|(class, name)| {
                let (total, correct) = confusion.of_class(class);
                json!({
                    "class": class,
                    "name": name,
                    "total": total,
                    "correct": correct,
                    "accuracy": fraction(correct, total),
                })
            })
            .collect();
        return output::json(&json!({
            "run_dir": run.path(),
            "weights": weights,
            "samples": confusion.total(),
            "correct": confusion.correct(),
            "accuracy": confusion.accuracy(),
            "classes": classes,
            "confusion": confusion.counts(),
        }));
    }
    output::text(&format!(
        "test accuracy: {:.6} ({} of {}), {}\n\nrows: true class; columns: predicted class\n{}",
        confusion.accuracy(),
        confusion.correct(),
        confusion.total(),
        weights.display(),
        confusion.table()
    ))
}
