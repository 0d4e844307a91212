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
