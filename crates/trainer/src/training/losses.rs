//! The sum of the losses of an epoch, read from the device without stalling it.

use candle_core::{Device, Result, Tensor};

/// Steps that an accelerator may run ahead before a loss is read from it. On the CPU a loss is there when it returns.
const DELAY: usize = 32;

/// Losses times samples, in double precision and step order.
pub(super) struct RunningLoss {
    sum: f64,
    pending: Vec<(Tensor, usize)>,
    delay: usize,
}

impl RunningLoss {
    pub(super) fn new(sum: f64, device: &Device) -> Self {
        Self {
            sum,
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

    /// The sum of the losses read so far.
    pub(super) fn so_far(&self) -> f64 {
        self.sum
    }

    /// The sum of all losses.
    pub(super) fn total(&mut self) -> Result<f64> {
        self.drain()?;
        Ok(self.sum)
    }

    fn drain(&mut self) -> Result<()> {
        for (loss, samples) in self.pending.drain(..) {
            self.sum += f64::from(loss.to_scalar::<f32>()?) * samples as f64;
        }
        Ok(())
    }
}
