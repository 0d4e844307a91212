//! Running the binary and looking at what it left.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// What a command did.
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// The binary, to be run in `folder`, with backtraces asked for so that they would show.
pub fn trainer(folder: &Path, arguments: &[&str]) -> Command {
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
pub fn run(folder: &Path, arguments: &[&str]) -> Finished {
    finish(
        trainer(folder, arguments)
            .output()
            .expect("the binary starts"),
    )
}

pub fn finish(output: Output) -> Finished {
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
pub fn expect(code: i32, folder: &Path, arguments: &[&str]) -> Finished {
    let finished = run(folder, arguments);
    assert_eq!(
        finished.code, code,
        "{arguments:?}\nstdout: {}\nstderr: {}",
        finished.stdout, finished.stderr
    );
    finished
}

/// The one JSON object on the standard output.
pub fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).expect("one JSON object and nothing else")
}

pub fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary folder")
}

pub fn read(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
