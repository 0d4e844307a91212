//! `train`: a new run, or an earlier one that goes on.

use std::path::PathBuf;

use candle_core::Device;
use candle_simd::Isa;
use clap::Args;
use lenet5::Forward;
use serde_json::{Value, json};

use super::options::{ComputeArgs, DatasetArgs, fraction, learning_rate, positive};
use super::output;
use crate::config::{LossKind, TrainConfig, Versions};
use crate::dataset::Dataset;
use crate::errors::{Result, TrainerError};
use crate::metrics::EpochMetrics;
use crate::run_dir::RunDir;
use crate::training::Training;
use crate::{device, interrupt};

/// Train LeNet-5: prints the loss and both accuracies of each epoch.
#[derive(Args, Debug)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    pub(super) recipe: RecipeArgs,
    /// Implementation of the loss [default: fused]
    #[arg(long, value_enum)]
    loss: Option<LossKind>,
    #[command(flatten)]
    pub(super) compute: ComputeArgs,
    #[command(flatten)]
    data: DatasetArgs,
    /// Folder of this run, new or empty [default: a new one under ./runs]
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    run_dir: Option<PathBuf>,
    /// Go on with a run where it stopped, to the same bits; without RUN, with the newest under ./runs
    #[arg(long, value_name = "RUN", num_args = 0..=1)]
    resume: Option<Option<PathBuf>>,
    /// Fail with exit code 5 when the final test accuracy is below A
    #[arg(long, value_name = "A", value_parser = fraction, allow_negative_numbers = true)]
    min_accuracy: Option<f64>,
    /// Print one JSON object on the standard output, everything else on the standard error
    #[arg(long)]
    pub(super) json: bool,
}

/// What determines the weights of a run, beside the loss.
#[derive(Args, Clone, Debug)]
pub(super) struct RecipeArgs {
    /// Passes over the training set [default: 5]
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    pub(super) epochs: Option<usize>,
    /// Images a step [default: 128]
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    pub(super) batch_size: Option<usize>,
    /// Adam's learning rate [default: 1e-3]
    #[arg(long, value_name = "RATE", value_parser = learning_rate, allow_negative_numbers = true)]
    pub(super) lr: Option<f64>,
    /// Seed of the initial weights and of the order of the images [default: 0]
    #[arg(long, value_name = "SEED", allow_negative_numbers = true)]
    pub(super) seed: Option<u64>,
    /// At most N batches an epoch, for a quick trial; accuracies are measured on all images all the same
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    pub(super) limit_batches: Option<usize>,
}

pub(super) fn run(args: &TrainArgs) -> Result<()> {
    interrupt::listen()?;
    let (run, mut config) = match &args.resume {
        None => (
            None,
            new_config(&args.recipe, args.loss.unwrap_or_default()),
        ),
        Some(run) => {
            let run = match run {
                Some(path) => RunDir::open(path)?,
                None => RunDir::newest()?,
            };
            let config = resumed_config(args, run.read_config()?)?;
            (Some(run), config)
        }
    };
    let (device, threads) = args.compute.open()?;
    let dataset = args.data.open()?;
    describe_machine(&mut config, &device, threads, &dataset);

    let (run, epochs) = match run {
        None => {
            let run = RunDir::create(args.run_dir.as_deref(), &config)?;
            let training = Training::start(&config, &dataset.data, &run, &device)?;
            tracing::info!("run directory: {}", run.path().display());
            (run.clone(), training.run()?)
        }
        Some(run) => {
            let training = Training::resume(&config, &dataset.data, &run, &device)?;
            let done = training.epochs_done();
            if done > config.epochs {
                return Err(TrainerError::Usage(format!(
                    "--epochs {}: the run in {} has {done} epochs already; give at least that many",
                    config.epochs,
                    run.path().display()
                )));
            }
            tracing::info!("going on with {} after epoch {done}", run.path().display());
            (run.clone(), training.run()?)
        }
    };
    tracing::info!("final weights: {}", run.weights().display());
    if args.json {
        output::json(&summary(&run, &config, &epochs)?)?;
    }
    check_accuracy(args.min_accuracy, &epochs)
}

/// The configuration of a new run; what the machine adds is filled in by [`describe_machine`].
pub(super) fn new_config(recipe: &RecipeArgs, loss: LossKind) -> TrainConfig {
    TrainConfig {
        epochs: recipe.epochs.unwrap_or(5),
        batch_size: recipe.batch_size.unwrap_or(128),
        lr: recipe.lr.unwrap_or(1e-3),
        loss,
        seed: recipe.seed.unwrap_or(0),
        limit_batches: recipe.limit_batches,
        dtype: "f32".into(),
        forward: format!("{:?}", Forward::default()).to_lowercase(),
        device: String::new(),
        threads: 0,
        isa: String::new(),
        data: PathBuf::new(),
        versions: Versions::current(),
    }
}

pub(super) fn describe_machine(
    config: &mut TrainConfig,
    device: &Device,
    threads: usize,
    dataset: &Dataset,
) {
    config.device = device::name(device);
    config.threads = threads;
    config.isa = Isa::active().name().into();
    config.data.clone_from(&dataset.folder);
    config.versions = Versions::current();
}

/// The configuration of an earlier run, with more epochs where the user asks for them. Whatever else determines the weights
/// cannot change on the way.
fn resumed_config(args: &TrainArgs, mut config: TrainConfig) -> Result<TrainConfig> {
    let recipe = &args.recipe;
    fn fixed<T: PartialEq + std::fmt::Debug>(
        flag: &str,
        asked: &Option<T>,
        recorded: &T,
    ) -> Result<()> {
        match asked {
            Some(asked) if asked != recorded => Err(TrainerError::Usage(format!(
                "{flag} {asked:?}: the run was started with {recorded:?}, which cannot change when it is resumed; \
                 leave {flag} out, or start a new run"
            ))),
            _ => Ok(()),
        }
    }
    fixed("--batch-size", &recipe.batch_size, &config.batch_size)?;
    fixed("--lr", &recipe.lr, &config.lr)?;
    fixed("--seed", &recipe.seed, &config.seed)?;
    fixed(
        "--loss",
        &args.loss.map(LossKind::name),
        &config.loss.name(),
    )?;
    if recipe.limit_batches.is_some() && recipe.limit_batches != config.limit_batches {
        let recorded = config.limit_batches.unwrap_or(usize::MAX);
        fixed("--limit-batches", &recipe.limit_batches, &recorded)?;
    }
    config.epochs = recipe.epochs.unwrap_or(config.epochs);
    Ok(config)
}

/// The object that `train --json` prints.
pub(super) fn summary(
    run: &RunDir,
    config: &TrainConfig,
    epochs: &[EpochMetrics],
) -> Result<Value> {
    let config = serde_json::to_value(config)
        .map_err(|error| TrainerError::Run(format!("cannot write JSON: {error}")))?;
    Ok(json!({
        "run_dir": run.path(),
        "config": config,
        "epochs": epochs.iter().map(EpochMetrics::summary).collect::<Vec<_>>(),
        "final_weights": run.weights(),
    }))
}

fn check_accuracy(least: Option<f64>, epochs: &[EpochMetrics]) -> Result<()> {
    let (Some(least), Some(last)) = (least, epochs.last()) else {
        return Ok(());
    };
    if last.test_accuracy >= least {
        return Ok(());
    }
    Err(TrainerError::CheckFailed(format!(
        "--min-accuracy {least}: the final test accuracy is {:.6}",
        last.test_accuracy
    )))
}
