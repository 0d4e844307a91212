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
