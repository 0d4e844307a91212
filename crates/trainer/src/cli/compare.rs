//! `compare`: one run a loss, from the same seed, side by side.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::options::{ComputeArgs, DatasetArgs};
use super::output;
use super::train::{RecipeArgs, describe_machine, new_config, summary};
use crate::config::LossKind;
use crate::errors::Result;
use crate::interrupt;
use crate::metrics::EpochMetrics;
use crate::run_dir::RunDir;
use crate::training::Training;

/// Train once per loss with the same seed and print the runs side by side.
#[derive(Args, Debug)]
pub(super) struct CompareArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    data: DatasetArgs,
    /// Folder for the runs, one folder a loss in it, each new or empty [default: new ones under ./runs]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Print one JSON object on the standard output, everything else on the standard error
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &CompareArgs) -> Result<()> {
    interrupt::listen()?;
    let (device, threads) = args.compute.open()?;
    let dataset = args.data.open()?;
    let mut runs = Vec::new();
    for loss in LossKind::ALL {
        let mut config = new_config(&args.recipe, loss);
        describe_machine(&mut config, &device, threads, &dataset);
        let folder = args.run_dir.as_ref().map(|base| base.join(loss.name()));
        let run = RunDir::create(folder.as_deref(), &config)?;
        tracing::info!("loss {}: {}", loss.name(), run.path().display());
        let epochs = Training::start(&config, &dataset.data, &run, &device)?.run()?;
        runs.push((loss, summary(&run, &config, &epochs)?, epochs));
    }
    let first: Vec<f64> = runs
        .iter()
        .filter_map(|(_, _, epochs)| Some(epochs.first()?.loss))
        .collect();
    let difference = first.iter().fold(f64::MIN, |a, b| a.max(*b))
        - first.iter().fold(f64::MAX, |a, b| a.min(*b));
    if args.json {
        let runs: Vec<_> = runs.iter().map(|(_, summary, _)| summary).collect();
        return output::json(&json!({"runs": runs, "first_epoch_loss_difference": difference}));
    }
    output::text(&format!(
        "{}first-epoch losses differ by at most {difference:.2e}\n",
        table(
            &runs
                .iter()
                .map(|(loss, _, epochs)| (*loss, epochs.as_slice()))
                .collect::<Vec<_>>()
        )
    ))
}

/// One row an epoch; for each loss the mean loss, the test accuracy and the seconds of training.
fn table(runs: &[(LossKind, &[EpochMetrics])]) -> String {
    let mut text = String::from("epoch");
    for (loss, _) in runs {
        text += &format!("  {:>28}", format!("{} (loss, test, s)", loss.name()));
    }
    text.push('\n');
    let epochs = runs
        .iter()
        .map(|(_, epochs)| epochs.len())
        .max()
        .unwrap_or(0);
    for epoch in 0..epochs {
        text += &format!("{:>5}", epoch + 1);
        for (_, run) in runs {
            let cell = run.get(epoch).map_or_else(String::new, |m| {
                format!(
                    "{:.6}  {:.4}  {:>8.2}",
                    m.loss, m.test_accuracy, m.train_seconds
                )
            });
            text += &format!("  {cell:>28}");
        }
        text.push('\n');
    }
    text
}
