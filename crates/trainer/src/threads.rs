//! `--threads N`: the size of the one CPU pool that kernels, Candle's matrix products and data preparation share.

use crate::errors::{Result, TrainerError};

/// The largest accepted number of threads; more is a typing error.
pub const MAX_THREADS: usize = 1024;

/// Sets up the pool with the calling thread as one of its workers, and returns the number of threads.
///
/// The caller takes part instead of handing work over and sleeping: a step has some twenty short parallel sections, and waking
/// a sleeping thread for each would cost as much as the work. Without `threads`, rayon's default holds (`RAYON_NUM_THREADS`, else
/// the cores).
///
/// # Errors
/// When the pool cannot be started, for example because it exists already with another size.
pub fn init(threads: Option<usize>) -> Result<usize> {
    let mut builder = rayon::ThreadPoolBuilder::new().use_current_thread();
    if let Some(threads) = threads {
        builder = builder.num_threads(threads);
    }
    builder
        .build_global()
        .map_err(|error| TrainerError::Run(format!("cannot start the pool of threads: {error}")))?;
    Ok(rayon::current_num_threads())
}

/// Candle's own setting for the number of threads of its element-wise ops.
const CANDLE_THREADS: &str = "CANDLE_NUM_THREADS";

/// Starts the process again with Candle's element-wise ops on one thread, unless the environment says how many they get.
///
/// Candle splits element-wise ops of 65,536 elements and more (here: the sum of gradients of the first feature map) among threads of
/// its own that spin while they wait for each other. Beside our pool they fight it for the cores, and when another process is busy a
/// step waits for a thread that does not run: an epoch took a third longer with them. Candle reads their number from the environment
/// alone, and once a process runs only `unsafe` code can change that.
///
/// Returns where the process cannot be replaced; then training is slower, and no less right.
pub fn restart_without_spinning_threads() {
    if std::env::var_os(CANDLE_THREADS).is_some() {
        return;
    }
    #[cfg(unix)]
    if let Ok(program) = std::env::current_exe() {
        use std::os::unix::process::CommandExt;
        let mut arguments = std::env::args_os();
        let mut command = std::process::Command::new(program);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        // Returns only when it failed.
        let _error = command.args(arguments).env(CANDLE_THREADS, "1").exec();
    }
}
