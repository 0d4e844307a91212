//! How a call is timed on a device that works behind the caller's back.
//!
//! A sample is a number of calls and one synchronisation after them, divided by the number of calls; `python/gpu.py` does
//! the same. The number is doubled until a sample takes long enough that the synchronisation does not count.

use candle_core::{Device, Result};
use std::time::{Duration, Instant};

/// How much time a measurement is worth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Tiny sizes, and one call a sample.
    pub(crate) smoke: bool,
    /// What a sample takes at least.
    sample: Duration,
    samples: usize,
    /// After this much time no further sample is begun.
    limit: Duration,
}

impl Effort {
    pub(crate) fn new(smoke: bool) -> Self {
        Self {
            smoke,
            sample: Duration::from_millis(if smoke { 0 } else { 5 }),
            samples: if smoke { 1 } else { 31 },
            limit: Duration::from_secs(if smoke { 1 } else { 5 }),
        }
    }
}

/// A median, and out of how many samples of how many calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) median_seconds: f64,
    pub(crate) samples: usize,
    pub(crate) calls_per_sample: usize,
}

/// Times `call`, whose result is dropped within the sample.
pub(crate) fn measure<T>(
    device: &Device,
    effort: &Effort,
    mut call: impl FnMut() -> Result<T>,
) -> Result<Timing> {
    let mut sample = |calls: usize| -> Result<Duration> {
        let start = Instant::now();
        for _ in 0..calls {
            call()?;
        }
        device.synchronize()?;
        Ok(start.elapsed())
    };
    // Kernels are loaded and memory pools filled.
    sample(1)?;
    let mut calls = 1;
    while sample(calls)? < effort.sample {
        calls *= 2;
    }
    let mut seconds = Vec::new();
    let begin = Instant::now();
    while seconds.len() < effort.samples && (seconds.is_empty() || begin.elapsed() < effort.limit) {
        seconds.push(sample(calls)?.as_secs_f64() / calls as f64);
    }
    seconds.sort_by(f64::total_cmp);
    Ok(Timing {
        median_seconds: seconds[seconds.len() / 2],
        samples: seconds.len(),
        calls_per_sample: calls,
    })
}
