//! Where the time of an epoch goes.

use std::time::{Duration, Instant};

use crate::metrics::Shares;

/// A part of a step.
#[derive(Clone, Copy)]
pub(super) enum Phase {
    Data,
    Forward,
    Backward,
    Optimizer,
}

/// Time since its start, split among the phases whose ends were marked.
pub(super) struct Stopwatch {
    start: Instant,
    last: Instant,
    phases: [Duration; 4],
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self {
            start: now,
            last: now,
            phases: [Duration::ZERO; 4],
        }
    }

    /// Ends a phase: the time since the last mark was its.
    pub(super) fn lap(&mut self, phase: Phase) {
        let now = Instant::now();
        self.phases[phase as usize] += now - self.last;
        self.last = now;
    }

    /// Ends data, forward and backward of parts that ran side by side: the time since the last mark is split among the phases
    /// as the threads' own time was.
    pub(super) fn lap_of_parts(&mut self, parts: impl Iterator<Item = [Duration; 3]>) {
        let now = Instant::now();
        let mut own = [Duration::ZERO; 3];
        for times in parts {
            for (sum, time) in own.iter_mut().zip(times) {
                *sum += time;
            }
        }
        let total: Duration = own.iter().sum();
        if !total.is_zero() {
            let scale = (now - self.last).as_secs_f64() / total.as_secs_f64();
            for (phase, time) in [Phase::Data, Phase::Forward, Phase::Backward]
                .into_iter()
                .zip(own)
            {
                self.phases[phase as usize] += time.mul_f64(scale);
            }
        }
        self.last = now;
    }

    pub(super) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    pub(super) fn shares(&self) -> Shares {
        let total = self.seconds();
        let share = |phase: Phase| self.phases[phase as usize].as_secs_f64() / total;
        Shares {
            forward: share(Phase::Forward),
            backward: share(Phase::Backward),
            optimizer: share(Phase::Optimizer),
            data: share(Phase::Data),
        }
    }
}
