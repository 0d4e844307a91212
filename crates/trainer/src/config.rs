//! The resolved configuration of a training run, as `config.json` holds it.

use std::path::PathBuf;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Which implementation of cross entropy trains the model. All three compute the same function.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum, Default,
)]
#[serde(rename_all = "lowercase")]
pub enum LossKind {
    /// The custom op with hand-written forward and backward passes.
    #[default]
    Fused,
    /// Candle's tensor ops; autograd derives the gradient.
    Composed,
    /// `candle_nn::loss::cross_entropy`.
    Candle,
}

impl LossKind {
    /// All kinds, in the order that `compare` runs them.
    pub const ALL: [Self; 3] = [Self::Fused, Self::Composed, Self::Candle];

    /// The name that the command line takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fused => "fused",
            Self::Composed => "composed",
            Self::Candle => "candle",
        }
    }

    /// Mean cross entropy of `logits` (N, C) and `targets` (N, u32): a scalar that backward can start from.
    ///
    /// # Errors
    /// As the chosen implementation reports.
    pub fn mean(self, logits: &Tensor, targets: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Fused => candle_losses::cross_entropy(logits, targets),
            Self::Composed => candle_losses::composed::cross_entropy(logits, targets),
            Self::Candle => candle_nn::loss::cross_entropy(logits, targets),
        }
    }
}

/// Everything that determines the weights of a run, and beside it what describes where it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// The number of passes over the training set.
    pub epochs: usize,
    /// Images a step; the last batch of an epoch may be smaller.
    pub batch_size: usize,
    /// Adam's learning rate.
    pub lr: f64,
    /// The loss that trains the model.
    pub loss: LossKind,
    /// Seed of the initial weights and of the order of the images.
    pub seed: u64,
    /// At most this many batches an epoch, for quick trials.
    pub limit_batches: Option<usize>,
    /// The float type of weights and images.
    pub dtype: String,
    /// How the model's forward pass is computed.
    pub forward: String,
    /// The device the run resolved to, for example `cpu` or `cuda:0`.
    pub device: String,
    /// Threads of the CPU pool. They do not influence the weights.
    pub threads: usize,
    /// The instruction set that the CPU kernels chose.
    pub isa: String,
    /// The folder the data set was read from.
    pub data: PathBuf,
    /// Versions of the code that wrote this.
    pub versions: Versions,
}

/// Versions recorded beside a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// This crate.
    pub trainer: String,
    /// candle-core, as locked.
    pub candle: String,
}

impl Versions {
    /// The versions of this build.
    pub fn current() -> Self {
        Self {
            trainer: env!("CARGO_PKG_VERSION").to_string(),
            candle: locked_version(include_str!("../../../Cargo.lock"), "candle-core")
                .unwrap_or("unknown")
                .to_string(),
        }
    }
}

/// The version of `package` in the text of a `Cargo.lock`. Candle does not export its own.
fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let entry = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != entry).skip(1);
    lines
        .next()?
        .strip_prefix("version = \"")?
        .strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locked_version_of_candle_is_found() {
        let version = Versions::current().candle;
        assert!(version.starts_with("0."), "{version}");
        assert_eq!(
            locked_version("name = \"a\"\nversion = \"1.2.3\"\n", "a"),
            Some("1.2.3")
        );
        assert_eq!(
            locked_version("name = \"a\"\nversion = \"1.2.3\"\n", "b"),
            None
        );
    }
}
