//! Settings of a training process that its tensors do not show: Candle's threads and the C library's heap.
//!
//! Candle reads its number of threads from the environment once a process, and once it runs only `unsafe` code could change that,
//! so the process starts itself again.

use std::ffi::OsStr;

use candle_simd::heap::keep_freed_memory;

/// Candle splits element-wise ops of 65,536 elements and more (here: the sum of gradients of the first feature map) among threads
/// of its own that spin while they wait for each other. Beside our pool they fight it for the cores, and when another process is
/// busy a step waits for a thread that does not run: an epoch took a third longer with them.
const CANDLE_THREADS: (&str, &str) = ("CANDLE_NUM_THREADS", "1");

/// A step allocates and frees the same tensors as the one before, and would fault in the same pages again: a fifth of a step's
/// time. This is several times of what a step needs.
const KEPT_BYTES: usize = 256 << 20;

/// The setting that an environment with this value of its variable lacks; what the user has set stays.
fn missing(value: Option<&OsStr>) -> Option<(&'static str, &'static str)> {
    value.is_none().then_some(CANDLE_THREADS)
}

/// Prepares the process, first thing in `main`; starts it again where its environment lacks a setting.
///
/// Returns in the process that is to train. Where it cannot be replaced, training is slower, and no less right.
pub fn prepare() {
    let missing = missing(std::env::var_os(CANDLE_THREADS.0).as_deref());
    #[cfg(unix)]
    if let Some((name, value)) = missing
        && let Ok(program) = std::env::current_exe()
    {
        use std::os::unix::process::CommandExt;
        let mut arguments = std::env::args_os();
        let mut command = std::process::Command::new(program);
        if let Some(program) = arguments.next() {
            command.arg0(program);
        }
        // Returns only when it failed.
        let _error = command.args(arguments).env(name, value).exec();
    }
    #[cfg(not(unix))]
    let _ = missing;
    keep_freed_memory(KEPT_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_has_set_is_not_set_again() {
        assert_eq!(missing(Some(OsStr::new("4"))), None);
        assert_eq!(missing(None), Some(("CANDLE_NUM_THREADS", "1")));
    }
}
