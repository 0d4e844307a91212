//! Ctrl-C: the first asks the run to stop at the next step, the second ends the process at once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::errors::{Result, TrainerError};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// The exit code of an interrupted command.
const INTERRUPTED: i32 = 130;

/// Starts to listen for Ctrl-C.
pub(crate) fn listen() -> Result<()> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(INTERRUPTED);
        }
    })
    .map_err(|error| TrainerError::Run(format!("cannot listen for Ctrl-C: {error}")))
}

/// Whether the user asked to stop.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
