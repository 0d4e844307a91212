//! Running cargo and the binaries it builds.

use crate::exit::Failure;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The root of the workspace, wherever the command was started.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Cargo's target folder.
pub(crate) fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => std::path::absolute(&target).unwrap_or_else(|_| target.into()),
        None => root().join("target"),
    }
}

/// The packages of the workspace, as `cargo metadata` describes them.
pub(crate) fn packages() -> Result<Vec<Value>, Failure> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .arg("--manifest-path")
        .arg(root().join("Cargo.toml"))
        .output()
        .map_err(|error| Failure::run(format!("cannot start cargo: {error}")))?;
    if !output.status.success() {
        return Err(Failure::run(format!(
            "cargo cannot read the workspace: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    let mut metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::run(format!("cargo metadata printed no JSON: {error}")))?;
    match metadata["packages"].take() {
        Value::Array(packages) => Ok(packages),
        _ => Err(Failure::run("cargo metadata named no packages")),
    }
}

/// An executable that cargo built.
pub(crate) struct Executable {
    /// The name of its target.
    pub(crate) name: String,
    /// The folder of its package.
    pub(crate) package: PathBuf,
    pub(crate) path: PathBuf,
}

/// Builds with `cargo ARGUMENTS` and returns the executables that it made.
///
/// Compiler messages go to standard error as in any build; the JSON that names the executables stays with us.
pub(crate) fn build_executables(arguments: &[&str]) -> Result<Vec<Executable>, Failure> {
    let mut cargo = cargo();
    cargo.current_dir(root());
    build_executables_with(cargo, arguments)
}

/// The same with a cargo of the caller's, whose environment may be another.
pub(crate) fn build_executables_with(
    mut cargo: Command,
    arguments: &[&str],
) -> Result<Vec<Executable>, Failure> {
    let output = cargo
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::run(format!("cannot start cargo: {error}")))?;
    if !output.status.success() {
        return Err(Failure::run(format!(
            "cargo {} failed",
            arguments.join(" ")
        )));
    }
    let executables = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| {
            Some(Executable {
                path: message["executable"].as_str()?.into(),
                name: message["target"]["name"].as_str()?.to_owned(),
                package: Path::new(message["manifest_path"].as_str()?)
                    .parent()?
                    .to_owned(),
            })
        })
        .collect();
    Ok(executables)
}

/// Builds the binary of `package` in release mode and returns its path.
pub(crate) fn build_binary(package: &str) -> Result<PathBuf, Failure> {
    // `--workspace` makes cargo choose the same features of the dependencies as a build of everything does, so that
    // commands and tests share one build of them; with `--package` hundreds of crates would be compiled again.
    let arguments = [
        "build",
        "--quiet",
        "--release",
        "--workspace",
        "--bin",
        package,
    ];
    build_executables(&arguments)?
        .pop()
        .map(|executable| executable.path)
        .ok_or_else(|| Failure::run(format!("cargo built {package} and named no executable")))
}

/// Builds the binary of `package`, then becomes it: its output, signals and exit code are the caller's.
pub(crate) fn become_binary(
    package: &str,
    arguments: impl Iterator<Item = impl AsRef<OsStr>>,
) -> Result<(), Failure> {
    let path = build_binary(package)?;
    let mut command = Command::new(&path);
    command.args(arguments);
    replace_process(command)
        .map_err(|error| Failure::run(format!("cannot start {}: {error}", path.display())))
}

#[cfg(unix)]
fn replace_process(mut command: Command) -> std::io::Result<()> {
    use std::os::unix::process::CommandExt;
    Err(command.exec())
}

#[cfg(not(unix))]
fn replace_process(mut command: Command) -> std::io::Result<()> {
    let status = command.status()?;
    std::process::exit(status.code().unwrap_or(1))
}
