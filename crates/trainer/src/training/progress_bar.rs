//! A bar on a terminal; nothing elsewhere, where the log lines say enough.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often the bar moves. A step can take half a millisecond, and drawing must not show in its time.
const INTERVAL: Duration = Duration::from_millis(100);

/// The bar of one epoch. It disappears when dropped.
pub(super) struct EpochBar {
    bar: Option<ProgressBar>,
    done: u64,
    drawn: Instant,
}

impl EpochBar {
    pub(super) fn new(epoch: usize, epochs: usize, steps: usize, done: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(steps as u64);
            if let Ok(style) =
                ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} steps, {eta} left")
            {
                bar.set_style(style);
            }
            bar.set_prefix(format!("epoch {epoch}/{epochs}"));
            bar.set_position(done as u64);
            bar
        });
        Self {
            bar,
            done: done as u64,
            drawn: Instant::now(),
        }
    }

    /// One step is done.
    pub(super) fn advance(&mut self) {
        let Some(bar) = &self.bar else { return };
        self.done += 1;
        if self.drawn.elapsed() >= INTERVAL {
            self.drawn = Instant::now();
            bar.set_position(self.done);
        }
    }
}

impl Drop for EpochBar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
