//! The folder of one training run.
//!
//! | file | holds |
//! |---|---|
//! | `config.json` | the resolved configuration |
//! | `metrics.jsonl` | one JSON line an epoch |
//! | `checkpoint.safetensors` | the latest state, to resume from |
//! | `weights.safetensors` | the final weights under PyTorch's names; absent until the run is complete |

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use candle_core::{DType, Device};
use lenet5::LeNet5;

use crate::checkpoint;
use crate::config::TrainConfig;
use crate::errors::{Result, TrainerError};
use crate::files::write_whole;
use crate::metrics::EpochMetrics;

/// Where runs go without `--run-dir`.
pub const RUNS: &str = "runs";

/// An existing folder of a run.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Creates a folder that holds nothing yet: `path`, or a new one under [`RUNS`] named by time, loss and seed.
    ///
    /// # Errors
    /// When `path` exists and is not an empty folder, or the folder cannot be created.
    pub fn create(path: Option<&Path>, config: &TrainConfig) -> Result<Self> {
        match path {
            Some(path) => Self::create_named(path),
            None => Self::create_new_in(Path::new(RUNS), config),
        }
    }

    fn create_named(path: &Path) -> Result<Self> {
        match fs::read_dir(path) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(TrainerError::Run(format!(
                        "the run directory {0} exists and is not empty; resume it with --resume {0}, or name another",
                        path.display()
                    )));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(path)
                    .map_err(TrainerError::io("create the run directory", path))?;
            }
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                return Err(TrainerError::Run(format!(
                    "the run directory {} cannot be used: it, or a part of its path, is a file; name another",
                    path.display()
                )));
            }
            Err(error) => {
                return Err(TrainerError::io("use the run directory", path)(error));
            }
        }
        Ok(Self {
            path: path.to_path_buf(),
        })
    }

    fn create_new_in(base: &Path, config: &TrainConfig) -> Result<Self> {
        fs::create_dir_all(base).map_err(TrainerError::io("create the folder of runs", base))?;
        let name = format!(
            "{}-{}-seed{}",
            utc_stamp(SystemTime::now()),
            config.loss.name(),
            config.seed
        );
        for attempt in 1.. {
            let path = match attempt {
                1 => base.join(&name),
                _ => base.join(format!("{name}-{attempt}")),
            };
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(TrainerError::io("create the run directory", &path)(error));
                }
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// The folder of an earlier run.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Err(TrainerError::Data(format!(
                "{}: no such run directory; expected a folder that `train` has written",
                path.display()
            )));
        }
        Ok(Self {
            path: path.to_path_buf(),
        })
    }

    /// The run under [`RUNS`] whose checkpoint was written last.
    ///
    /// # Errors
    /// When there is none.
    pub fn newest() -> Result<Self> {
        let base = Path::new(RUNS);
        let none = || {
            TrainerError::Data(format!(
                "no run to resume: no folder under ./{RUNS} has a checkpoint; name the run: --resume RUN"
            ))
        };
        let mut runs: Vec<(SystemTime, PathBuf)> = fs::read_dir(base)
            .map_err(|_| none())?
            .flatten()
            .filter_map(|entry| {
                let run = Self { path: entry.path() };
                let written = fs::metadata(run.checkpoint()).ok()?.modified().ok()?;
                Some((written, run.path))
            })
            .collect();
        runs.sort();
        let (_, path) = runs.pop().ok_or_else(none)?;
        Ok(Self { path })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of the final weights.
    pub fn weights(&self) -> PathBuf {
        self.path.join("weights.safetensors")
    }

    /// The file to resume from.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join("checkpoint.safetensors")
    }

    fn config(&self) -> PathBuf {
        self.path.join("config.json")
    }

    fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Writes the configuration.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_config(&self, config: &TrainConfig) -> Result<()> {
        let mut text = serde_json::to_string_pretty(config).map_err(|error| {
            TrainerError::Run(format!("cannot write the configuration: {error}"))
        })?;
        text.push('\n');
        write_whole(&self.config(), text.as_bytes())
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// When the file is missing or not a configuration.
    pub fn read_config(&self) -> Result<TrainConfig> {
        let path = self.config();
        let text = fs::read_to_string(&path).map_err(|error| {
            TrainerError::Data(format!(
                "{} is not a run directory: cannot read {}: {error}",
                self.path.display(),
                path.display()
            ))
        })?;
        serde_json::from_str(&text).map_err(|error| {
            TrainerError::Data(format!(
                "{}: not a run's configuration: {error}",
                path.display()
            ))
        })
    }

    /// Appends the line of an epoch.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append_metrics(&self, metrics: &EpochMetrics) -> Result<()> {
        let path = self.metrics();
        let line = line_of(metrics)?;
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(line.as_bytes())?;
                file.sync_all()
            })
            .map_err(TrainerError::io("write", &path))
    }

    /// Reads the lines of the first `epochs` epochs and drops what follows: lines of an epoch whose checkpoint was never
    /// written, because the run was killed between the two.
    ///
    /// # Errors
    /// When a line of these epochs is missing or malformed, or the file cannot be read or written.
    pub fn truncate_metrics(&self, epochs: usize) -> Result<Vec<EpochMetrics>> {
        let path = self.metrics();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound && epochs == 0 => String::new(),
            Err(error) => return Err(TrainerError::io("read", &path)(error)),
        };
        let mut kept = Vec::with_capacity(epochs);
        let mut lines = text.lines();
        for epoch in 1..=epochs {
            let metrics: Option<EpochMetrics> = lines
                .next()
                .and_then(|line| serde_json::from_str(line).ok());
            match metrics {
                Some(metrics) if metrics.epoch == epoch => kept.push(metrics),
                _ => {
                    return Err(TrainerError::Data(format!(
                        "{}: line {epoch}: expected the metrics of epoch {epoch}, which the checkpoint includes",
                        path.display()
                    )));
                }
            }
        }
        if lines.next().is_some() {
            let text = kept.iter().map(line_of).collect::<Result<String>>()?;
            write_whole(&path, text.as_bytes())?;
        }
        Ok(kept)
    }

    /// The final weights, or those of the checkpoint where the run is not complete, and the file they came from.
    ///
    /// # Errors
    /// When neither file is there, or the one that is there is malformed.
    pub fn load_model(&self, device: &Device) -> Result<(LeNet5, PathBuf)> {
        let (weights, checkpoint) = (self.weights(), self.checkpoint());
        if weights.exists() {
            return Ok((LeNet5::load(&weights, DType::F32, device)?, weights));
        }
        if checkpoint.exists() {
            let loaded = checkpoint::load(&checkpoint, device)?;
            tracing::warn!(
                "{} has no final weights; using its checkpoint after epoch {}",
                self.path.display(),
                loaded.progress.epochs_done
            );
            return Ok((loaded.model, checkpoint));
        }
        Err(TrainerError::Data(format!(
            "{}: neither weights.safetensors nor checkpoint.safetensors is there; expected a folder that `train` has written",
            self.path.display()
        )))
    }
}

fn line_of(metrics: &EpochMetrics) -> Result<String> {
    serde_json::to_string(metrics)
        .map(|line| line + "\n")
        .map_err(|error| TrainerError::Run(format!("cannot write the metrics: {error}")))
}

/// `YYYYMMDD-HHMMSS` in UTC.
fn utc_stamp(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs();
    let (days, seconds) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    format!(
        "{year:04}{month:02}{day:02}-{:02}{:02}{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Year, month and day of a number of days since 1970-01-01 (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_the_utc_date_and_time() {
        let stamp = |seconds| utc_stamp(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(stamp(0), "19700101-000000");
        assert_eq!(stamp(951_782_399), "20000228-235959");
        assert_eq!(stamp(951_782_400), "20000229-000000");
        assert_eq!(stamp(1_798_761_599), "20261231-235959");
    }

    fn metrics(epoch: usize) -> EpochMetrics {
        EpochMetrics {
            epoch,
            loss: 0.1 + epoch as f64,
            train_accuracy: 0.5,
            test_accuracy: 0.5,
            train_seconds: 1.0,
            eval_seconds: 1.0,
            images_per_second: 1.0,
            shares: crate::metrics::Shares::default(),
        }
    }

    #[test]
    fn metrics_beyond_the_checkpoint_are_dropped() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let run = RunDir::open(folder.path())?;
        assert!(run.truncate_metrics(0)?.is_empty());
        for epoch in 1..=3 {
            run.append_metrics(&metrics(epoch))?;
        }
        assert_eq!(run.truncate_metrics(2)?, [metrics(1), metrics(2)]);
        assert!(run.truncate_metrics(3).is_err());
        run.append_metrics(&metrics(3))?;
        assert_eq!(run.truncate_metrics(3)?.len(), 3);
        Ok(())
    }
}
