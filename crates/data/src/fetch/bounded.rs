//! Work with a bound on its time: functions on a thread, and programs that are killed.

use crate::error::DataError;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Runs `work` on a thread and waits for it no longer than `limit`.
///
/// A thread cannot be killed: work that overruns goes on in the background, its result ignored. Only for work that has
/// no effect but its result.
#[cfg_attr(
    not(feature = "hub"),
    allow(dead_code, reason = "only the hub has no program to kill")
)]
pub(super) fn call<T: Send + 'static>(
    what: &str,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DataError> {
    let (send, receive) = mpsc::channel();
    std::thread::Builder::new()
        .name("fashion-mnist-fetch".into())
        .spawn(move || {
            // Nobody listens any more after the limit.
            let _ = send.send(work());
        })
        .map_err(DataError::io(Path::new(what), "start a thread for it"))?;
    receive.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => DataError::TimedOut {
            what: what.into(),
            limit,
        },
        // The sender went away without sending: the work panicked.
        RecvTimeoutError::Disconnected => DataError::HubFailed {
            reason: format!("{what} panicked"),
        },
    })
}

/// Where programs are looked for, how long all of them together may take, and where they work.
pub(super) struct Programs<'a> {
    search_path: &'a OsStr,
    dir: &'a Path,
    start: Instant,
    limit: Duration,
}

impl<'a> Programs<'a> {
    /// Programs of `search_path` (a list as in `$PATH`), working in `dir`, for at most `limit` from now on in all.
    pub(super) fn new(search_path: &'a OsStr, dir: &'a Path, limit: Duration) -> Self {
        Programs {
            search_path,
            dir,
            start: Instant::now(),
            limit,
        }
    }

    /// The program's path, so that a missing one is told from one that fails.
    pub(super) fn find(&self, program: &'static str) -> Result<PathBuf, DataError> {
        std::env::split_paths(self.search_path)
            .map(|dir| dir.join(program))
            .find(|path| path.is_file())
            .ok_or(DataError::ProgramNotFound { program })
    }

    /// Runs a program to its end, or kills it when the time is up.
    pub(super) fn run<S: AsRef<OsStr>>(
        &self,
        program: &'static str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<(), DataError> {
        let mut command = Command::new(self.find(program)?);
        command
            .args(args)
            .current_dir(self.dir)
            .env("PATH", self.search_path)
            // Messages are read for their cause, so they have to be in one language.
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        // To a file, not a pipe: a grandchild that outlives a killed program would keep a pipe open and us waiting.
        let log = self.dir.join("output.log");
        let output = File::create(&log).map_err(DataError::io(&log, "create the file"))?;
        let errors = output
            .try_clone()
            .map_err(DataError::io(&log, "open the file twice"))?;
        let mut child = command
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(DataError::io(Path::new(program), "run the program"))?;

        let text = || {
            let mut words = vec![program.to_string()];
            words.extend(
                command
                    .get_args()
                    .map(|arg| arg.to_string_lossy().into_owned()),
            );
            words.join(" ")
        };
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if self.start.elapsed() < self.limit => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Ok(None) => {
                    kill(&mut child);
                    return Err(DataError::TimedOut {
                        what: format!("`{}`", text()),
                        limit: self.limit,
                    });
                }
                Err(error) => {
                    kill(&mut child);
                    return Err(DataError::io(Path::new(program), "wait for the program")(
                        error,
                    ));
                }
            }
        };
        if status.success() {
            return Ok(());
        }
        Err(DataError::ProgramFailed {
            command: text(),
            status: status.to_string(),
            output: tail(&std::fs::read(&log).unwrap_or_default()),
        })
    }
}

fn kill(child: &mut Child) {
    // It may have ended in the meantime, which is as good.
    let _ = child.kill();
    let _ = child.wait();
}

/// The last lines of a program's output, on one line.
fn tail(output: &[u8]) -> String {
    const LINES: usize = 4;
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    match &lines[lines.len().saturating_sub(LINES)..] {
        [] => "no output".into(),
        last => last.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_hangs_is_given_up_at_its_limit() {
        let start = Instant::now();
        let limit = Duration::from_millis(50);
        let error = call("a long sleep", limit, || {
            std::thread::sleep(Duration::from_secs(20))
        });
        assert!(matches!(error, Err(DataError::TimedOut { .. })));
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn the_tail_of_output_is_its_last_lines() {
        assert_eq!(tail(b"1\n2\n\n 3\n4\n5\n"), "2; 3; 4; 5");
        assert_eq!(tail(b"\n\n"), "no output");
    }
}
