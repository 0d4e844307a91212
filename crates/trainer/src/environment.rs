//! Settings that a training process has to find in its environment when it starts: Candle's threads and the C library's allocator.
//!
//! Both are read once a process, and once it runs only `unsafe` code could change them, so the process starts itself again.

use std::ffi::OsString;

/// What a variable is set to where the environment does not set it.
///
/// - Candle splits element-wise ops of 65,536 elements and more (here: the sum of gradients of the first feature map) among
///   threads of its own that spin while they wait for each other. Beside our pool they fight it for the cores, and when another
///   process is busy a step waits for a thread that does not run: an epoch took a third longer with them.
/// - glibc gives memory from 128 KiB on, and free memory at the top of its heap, back to the kernel at once. A step allocates
///   and frees the same tensors as the one before, so each would fault in the same pages again: a fifth of a step's time. It
///   now keeps up to 256 MiB, several times of what a step needs. Other C libraries ignore the variable.
const SETTINGS: [(&str, &str); 2] = [
    ("CANDLE_NUM_THREADS", "1"),
    (
        "GLIBC_TUNABLES",
        "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=268435456",
    ),
];

/// The settings that `environment` lacks.
fn missing(
    environment: impl Fn(&str) -> Option<OsString>,
) -> impl Iterator<Item = (&'static str, &'static str)> {
    SETTINGS
        .into_iter()
        .filter(move |(name, _)| environment(name).is_none())
}

/// Starts the process again with the settings that its environment lacks; what the user has set stays.
///
/// Returns where nothing is missing, or where the process cannot be replaced; then training is slower, and no less right.
pub fn restart_with_settings() {
    let missing: Vec<_> = missing(|name| std::env::var_os(name)).collect();
    if missing.is_empty() {
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
        let _error = command.args(arguments).envs(missing).exec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_has_set_is_not_set_again() {
        let environment = |name: &str| (name == "GLIBC_TUNABLES").then(|| OsString::from("mine"));
        assert_eq!(
            missing(environment).collect::<Vec<_>>(),
            [("CANDLE_NUM_THREADS", "1")]
        );
    }

    #[test]
    fn a_process_with_the_settings_does_not_start_again() {
        let environment = |name: &str| {
            let setting = SETTINGS.iter().find(|(known, _)| *known == name);
            setting.map(|(_, value)| OsString::from(value))
        };
        assert_eq!(missing(environment).count(), 0);
    }
}
