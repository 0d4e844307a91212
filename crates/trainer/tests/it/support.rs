//! Running the binary and looking at what it left.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// What a command did.
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The binary, to be run in `folder`, with backtraces asked for so that they would show.
pub(crate) fn trainer(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
    command
        .current_dir(folder)
        .args(arguments)
        .env("RUST_BACKTRACE", "1")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

/// Runs to the end. Whatever happened, it was no panic, and no backtrace was printed.
pub(crate) fn run(folder: &Path, arguments: &[&str]) -> Finished {
    finish(
        trainer(folder, arguments)
            .output()
            .expect("the binary starts"),
    )
}

pub(crate) fn finish(output: Output) -> Finished {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let finished = Finished {
        code: output.status.code().expect("no signal ended it"),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    };
    for noise in ["panicked", "stack backtrace", "RUST_BACKTRACE", " 0: "] {
        assert!(!finished.stderr.contains(noise), "{}", finished.stderr);
    }
    finished
}

/// Runs and expects this exit code.
pub(crate) fn expect(code: i32, folder: &Path, arguments: &[&str]) -> Finished {
    let finished = run(folder, arguments);
    assert_eq!(
        finished.code, code,
        "{arguments:?}\nstdout: {}\nstderr: {}",
        finished.stdout, finished.stderr
    );
    finished
}

/// The one JSON object on the standard output.
pub(crate) fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).expect("one JSON object and nothing else")
}

pub(crate) fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary folder")
}

pub(crate) fn read(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
