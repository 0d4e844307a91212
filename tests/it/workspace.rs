//! Where the workspace lies and how its commands are run from a test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lie below the root")
}

/// A cargo command at the root, with the cargo that runs the tests.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// What a finished command printed, as text.
pub(crate) fn text(output: &Output) -> (String, String) {
    let decode = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (decode(&output.stdout), decode(&output.stderr))
}

/// Every file that git tracks or would track, so that build outputs stay out.
pub(crate) fn files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(
        output.status.success(),
        "git ls-files failed: {}",
        text(&output).1
    );
    let listed = text(&output).0;
    let files: Vec<_> = listed
        .lines()
        .map(PathBuf::from)
        .filter(|file| root().join(file).is_file())
        .collect();
    assert!(
        files.len() > 20,
        "git ls-files named only {} files",
        files.len()
    );
    files
}
