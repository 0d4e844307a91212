//! Numbers about a model: those of an epoch, and the confusion matrix.

use fashion_mnist::CLASSES;
use serde::{Deserialize, Serialize};

/// The line of `metrics.jsonl` for one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Mean loss over the samples of the epoch, each before its step.
    pub loss: f64,
    /// The fraction of all training images classified correctly after the epoch.
    pub train_accuracy: f64,
    /// The same of all test images.
    pub test_accuracy: f64,
    /// Seconds of training; of the part after the resumption where the epoch was interrupted.
    pub train_seconds: f64,
    /// Seconds of measuring both accuracies.
    pub eval_seconds: f64,
    /// Training images a second of `train_seconds`.
    pub images_per_second: f64,
    /// Where `train_seconds` went.
    pub shares: Shares,
}

impl EpochMetrics {
    /// The part that `train --json` prints.
    pub fn summary(&self) -> serde_json::Value {
        serde_json::json!({
            "epoch": self.epoch,
            "loss": self.loss,
            "train_accuracy": self.train_accuracy,
            "test_accuracy": self.test_accuracy,
            "train_seconds": self.train_seconds,
            "eval_seconds": self.eval_seconds,
        })
    }
}

/// Fractions of the training time; what is missing to 1 is bookkeeping.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Shares {
    /// Forward pass and loss.
    pub forward: f64,
    /// Backward pass.
    pub backward: f64,
    /// Adam.
    pub optimizer: f64,
    /// Normalising images.
    pub data: f64,
}

/// How often each true class (row) was predicted as each class (column).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Confusion {
    counts: [[usize; 10]; 10],
}

impl Confusion {
    /// Counts one sample. Classes are below 10.
    pub fn add(&mut self, truth: usize, predicted: usize) {
        self.counts[truth][predicted] += 1;
    }

    /// The counts of both.
    #[must_use]
    pub fn merged(mut self, other: Self) -> Self {
        for (row, more) in self.counts.iter_mut().zip(other.counts) {
            for (count, more) in row.iter_mut().zip(more) {
                *count += more;
            }
        }
        self
    }

    /// Rows are true classes, columns predictions.
    pub fn counts(&self) -> &[[usize; 10]; 10] {
        &self.counts
    }

    /// Samples counted.
    pub fn total(&self) -> usize {
        self.counts.iter().flatten().sum()
    }

    /// Samples on the diagonal.
    pub fn correct(&self) -> usize {
        (0..10).map(|class| self.counts[class][class]).sum()
    }

    /// The fraction on the diagonal; 0 of no samples.
    pub fn accuracy(&self) -> f64 {
        fraction(self.correct(), self.total())
    }

    /// Samples of a true class, and how many of them were recognised.
    pub fn of_class(&self, class: usize) -> (usize, usize) {
        (self.counts[class].iter().sum(), self.counts[class][class])
    }

    /// A table for people: one row a true class with its recall.
    pub fn table(&self) -> String {
        let mut text = format!("{:<12}", "true class");
        for class in 0..10 {
            text += &format!("{class:>6}");
        }
        text += "   accuracy\n";
        for (class, row) in self.counts.iter().enumerate() {
            text += &format!("{:<12}", format!("{class} {}", CLASSES[class]));
            for count in row {
                text += &format!("{count:>6}");
            }
            let (total, correct) = self.of_class(class);
            text += &format!("   {:.6}\n", fraction(correct, total));
        }
        text
    }
}

/// `part / whole`, 0 where there is nothing.
pub fn fraction(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confusion_matrix_counts_rows_by_truth() {
        let mut confusion = Confusion::default();
        assert_eq!(confusion.accuracy(), 0.0);
        confusion.add(2, 2);
        confusion.add(2, 6);
        confusion.add(9, 9);
        assert_eq!(confusion.counts()[2][6], 1);
        assert_eq!((confusion.total(), confusion.correct()), (3, 2));
        assert_eq!(confusion.of_class(2), (2, 1));
        assert_eq!(confusion.table().lines().count(), 11);
    }
}
