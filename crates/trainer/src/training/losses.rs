//! The sum of the losses of an epoch, read from the device without stalling it, and whether they are still those of a model
//! that learns.

use candle_core::{Device, Result, Tensor};

/// Steps that an accelerator may run ahead before a loss is read from it. On the CPU a loss is there when it returns.
const DELAY: usize = 32;

/// A mean loss above this is no longer training: guessing has ln 10 = 2.3, and here the wrong class counts as e^100000 times as
/// probable. Weights can be blown up so far without any number ceasing to be finite.
const DIVERGED: f64 = 1e5;

/// Losses times samples, in double precision and step order.
pub(super) struct RunningLoss {
    sum: f64,
    diverged: Option<f64>,
    pending: Vec<(Tensor, usize)>,
    delay: usize,
}

impl RunningLoss {
    pub(super) fn new(sum: f64, device: &Device) -> Self {
        Self {
            sum,
            diverged: None,
            pending: Vec::new(),
            delay: if device.is_cpu() { 0 } else { DELAY },
        }
    }

    /// Adds the mean loss of a batch of that many samples.
    pub(super) fn add(&mut self, loss: &Tensor, samples: usize) -> Result<()> {
        // Detached: a pending loss must not keep the graph of its step.
        self.pending.push((loss.detach(), samples));
        if self.pending.len() > self.delay {
            self.drain()?;
        }
        Ok(())
    }

    /// The first loss read that was not finite or too large to be that of a model that learns.
    pub(super) fn diverged(&self) -> Option<f64> {
        self.diverged
    }

    /// The sum of all losses.
    pub(super) fn total(&mut self) -> Result<f64> {
        self.drain()?;
        Ok(self.sum)
    }

    fn drain(&mut self) -> Result<()> {
        for (loss, samples) in self.pending.drain(..) {
            let loss = f64::from(loss.to_scalar::<f32>()?);
            if (loss.is_nan() || loss.abs() >= DIVERGED) && self.diverged.is_none() {
                self.diverged = Some(loss);
            }
            self.sum += loss * samples as f64;
        }
        Ok(())
    }
}
