//! The training loop.
//!
//! An epoch visits every training image once, in an order that depends on seed and epoch alone, in batches of which the last may
//! be smaller; after it both accuracies are measured exactly, over all images. The state is written after each epoch, so that
//! a run that stops for any reason goes on from there to the same bits.

mod batches;
mod evaluation;
mod losses;
mod parts;
mod progress_bar;
#[cfg(test)]
mod tests;
mod timing;

use candle_core::{DType, Device};
use fashion_mnist::{FashionMnist, Split, shuffle};
use lenet5::LeNet5;

use crate::checkpoint::{self, Checkpoint, Progress};
use crate::config::TrainConfig;
use crate::errors::{Result, TrainerError};
use crate::interrupt;
use crate::metrics::{Confusion, EpochMetrics};
use crate::optimizer::{Adam, AdamOptions};
use crate::run_dir::RunDir;

use batches::BatchBuffer;
pub use evaluation::evaluate;
use losses::RunningLoss;
use parts::Part;
pub use parts::gradients;
use progress_bar::EpochBar;
use timing::{Phase, Stopwatch};

/// A run at some point of its way.
pub struct Training<'a> {
    config: &'a TrainConfig,
    data: &'a FashionMnist,
    run: &'a RunDir,
    model: LeNet5,
    adam: Adam,
    progress: Progress,
    history: Vec<EpochMetrics>,
}

impl<'a> Training<'a> {
    /// A run at its beginning. Its first checkpoint is written at once: a run directory that cannot be written shows
    /// before any work is done.
    ///
    /// # Errors
    /// When the run directory cannot be written.
    pub fn start(
        config: &'a TrainConfig,
        data: &'a FashionMnist,
        run: &'a RunDir,
        device: &Device,
    ) -> Result<Self> {
        let model = LeNet5::new(config.seed, DType::F32, device)?;
        let adam = Adam::new(adam_options(config), model.parameters())?;
        run.write_config(config)?;
        let training = Self {
            config,
            data,
            run,
            model,
            adam,
            progress: Progress::default(),
            history: Vec::new(),
        };
        training.save_checkpoint()?;
        Ok(training)
    }

    /// A run that goes on from its checkpoint.
    ///
    /// # Errors
    /// When the run's files cannot be read or do not belong together.
    pub fn resume(
        config: &'a TrainConfig,
        data: &'a FashionMnist,
        run: &'a RunDir,
        device: &Device,
    ) -> Result<Self> {
        let Checkpoint {
            model,
            adam,
            progress,
        } = checkpoint::load(&run.checkpoint(), device)?;
        let adam = Adam::restore(adam_options(config), model.parameters(), &adam)?;
        let history = run.truncate_metrics(progress.epochs_done)?;
        run.write_config(config)?;
        Ok(Self {
            config,
            data,
            run,
            model,
            adam,
            progress,
            history,
        })
    }

    /// Epochs that are complete.
    pub fn epochs_done(&self) -> usize {
        self.progress.epochs_done
    }

    /// Trains to the configured number of epochs, writes the final weights and returns the metrics of every epoch, those
    /// before a resumption included.
    ///
    /// # Errors
    /// [`TrainerError::Diverged`] when the loss or the weights stop being numbers, [`TrainerError::Interrupted`] after Ctrl-C,
    /// and others when a file cannot be written. The checkpoint then holds the last good state.
    pub fn run(mut self) -> Result<Vec<EpochMetrics>> {
        while self.progress.epochs_done < self.config.epochs {
            let metrics = self.epoch()?;
            report(&metrics);
            self.run.append_metrics(&metrics)?;
            self.history.push(metrics);
            self.progress = Progress {
                epochs_done: self.progress.epochs_done + 1,
                ..Progress::default()
            };
            self.save_checkpoint()?;
        }
        self.model.save(self.run.weights())?;
        Ok(self.history)
    }

    /// Trains one epoch and measures the accuracies.
    fn epoch(&mut self) -> Result<EpochMetrics> {
        let epoch = self.progress.epochs_done + 1;
        let mut watch = Stopwatch::start();
        let images = self.train_epoch(epoch, &mut watch)?;
        let (train_seconds, shares) = (watch.seconds(), watch.shares());

        let watch = Stopwatch::start();
        let train = self.evaluate(&self.data.train, epoch)?;
        let test = self.evaluate(&self.data.test, epoch)?;
        Ok(EpochMetrics {
            epoch,
            loss: self.progress.loss_sum / self.progress.samples as f64,
            train_accuracy: train.accuracy(),
            test_accuracy: test.accuracy(),
            train_seconds,
            eval_seconds: watch.seconds(),
            images_per_second: images as f64 / train_seconds,
            shares,
        })
    }

    /// Takes the steps of an epoch that are not done yet, and returns the number of images they visited.
    fn train_epoch(&mut self, epoch: usize, watch: &mut Stopwatch) -> Result<usize> {
        let order = shuffle(self.config.seed, epoch as u64, self.data.train.len());
        let batches = order.chunks(self.config.batch_size);
        let steps = batches
            .len()
            .min(self.config.limit_batches.unwrap_or(usize::MAX));
        let mut bar = EpochBar::new(epoch, self.config.epochs, steps, self.progress.steps_done);
        let device = self.model.device().clone();
        let mut buffers = Vec::new();
        let mut loss_sum = RunningLoss::new(self.progress.loss_sum, self.model.device());
        let mut images_seen = 0;

        for indices in batches.take(steps).skip(self.progress.steps_done) {
            if interrupt::requested() {
                self.progress.loss_sum = loss_sum.total()?;
                return Err(self.interrupted(epoch));
            }
            let size = parts::part_size(indices.len(), &device);
            buffers.resize_with(indices.len().div_ceil(size), || BatchBuffer::new(&device));
            let shares = buffers.iter_mut().zip(indices.chunks(size)).collect();
            let parts = parts::side_by_side(&device, shares, |(buffer, part)| {
                Part::run(&self.model, self.config.loss, indices.len(), || {
                    buffer.fill(&self.data.train, part)
                })
            })?;
            for part in &parts {
                loss_sum.add(&part.loss, part.samples)?;
            }
            self.check_learning(&loss_sum, epoch)?;
            watch.lap_of_parts(parts.iter().map(|part| part.times));
            let grads: Vec<_> = parts.iter().map(|part| &part.grads).collect();
            self.adam.step_of_parts(self.model.parameters(), &grads)?;
            watch.lap(Phase::Optimizer);

            images_seen += indices.len();
            self.progress.samples += indices.len();
            self.progress.steps_done += 1;
            bar.advance();
        }
        self.progress.loss_sum = loss_sum.total()?;
        self.check_learning(&loss_sum, epoch)?;
        for (name, var) in self.model.parameters() {
            let sum = var.abs()?.sum_all()?.to_scalar::<f32>()?;
            if !sum.is_finite() {
                return Err(self.diverged(name, f64::from(sum), epoch));
            }
        }
        Ok(images_seen)
    }

    /// Classifies all images of a split; an interruption is noticed between batches.
    fn evaluate(&self, split: &Split, epoch: usize) -> Result<Confusion> {
        evaluate(&self.model, split, interrupt::requested)?.ok_or_else(|| self.interrupted(epoch))
    }

    fn check_learning(&self, losses: &RunningLoss, epoch: usize) -> Result<()> {
        match losses.diverged() {
            None => Ok(()),
            Some(loss) => Err(self.diverged("the loss", loss, epoch)),
        }
    }

    fn diverged(&self, what: &str, value: f64, epoch: usize) -> TrainerError {
        TrainerError::Diverged(format!(
            "diverged: {what} became {value:.3e} at step {} of epoch {epoch}, with learning rate {}; try a smaller --lr. \
             The last good state, after epoch {}, is in {}",
            self.progress.steps_done + 1,
            self.config.lr,
            self.progress.epochs_done,
            self.run.checkpoint().display()
        ))
    }

    /// Saves the state in the middle of an epoch, and says how to go on.
    fn interrupted(&self, epoch: usize) -> TrainerError {
        if let Err(error) = self.save_checkpoint() {
            return error;
        }
        let run = self.run.path().display();
        TrainerError::Interrupted(format!(
            "interrupted in epoch {epoch} after step {}; the state is saved in {run}. Go on with: cargo xtask train --resume {run}",
            self.progress.steps_done
        ))
    }

    fn save_checkpoint(&self) -> Result<()> {
        checkpoint::save(
            &self.run.checkpoint(),
            &self.model,
            &self.adam,
            self.progress,
        )
    }
}

fn adam_options(config: &TrainConfig) -> AdamOptions {
    AdamOptions {
        lr: config.lr,
        ..AdamOptions::default()
    }
}

/// The lines of an epoch; scripts read the first two.
pub fn report(metrics: &EpochMetrics) {
    let EpochMetrics { epoch, loss, .. } = metrics;
    tracing::info!("epoch: {epoch} loss: {loss:.6}");
    tracing::info!(
        "train accuracy: {:.6} test accuracy: {:.6}",
        metrics.train_accuracy,
        metrics.test_accuracy
    );
    let shares = metrics.shares;
    tracing::info!(
        "train: {:.3} s, {:.0} images/s (forward {:.0}%, backward {:.0}%, optimizer {:.0}%, data {:.0}%) eval: {:.3} s",
        metrics.train_seconds,
        metrics.images_per_second,
        100.0 * shares.forward,
        100.0 * shares.backward,
        100.0 * shares.optimizer,
        100.0 * shares.data,
        metrics.eval_seconds
    );
}
