//! Where things are: CUDA's headers, the names of its functions, candle's kernels, this project's kernels.

use crate::Error;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The `.cu` files of candle-kernels that `candle_core` launches through the driver, apart from the quantised ones.
const CANDLE_FILES: [&str; 10] = [
    "affine", "binary", "cast", "conv", "fill", "indexing", "reduce", "sort", "ternary", "unary",
];

/// CUDA's headers and what is known about its libraries.
#[derive(Debug)]
pub(crate) struct Toolkit {
    pub(crate) include: PathBuf,
    pub(crate) version: (u32, u32),
    /// The folder with the `.symbols` lists that `cargo xtask cuda-toolchain` makes.
    pub(crate) symbols: PathBuf,
}

impl Toolkit {
    pub(crate) fn find() -> Result<Self, Error> {
        let bundled = target_folder().join("cuda-toolchain");
        let home = ["CUDA_HOME", "CUDA_PATH"]
            .iter()
            .filter_map(std::env::var_os)
            .map(PathBuf::from)
            .chain([bundled.join("cu13")])
            .find(|home| home.join("include/cuda.h").is_file())
            .ok_or_else(|| {
                Error::new(format!(
                    "CUDA's headers are not in CUDA_HOME, CUDA_PATH or {}; run `eval \"$(cargo xtask cuda-toolchain)\"`",
                    bundled.display()
                ))
            })?;
        let include = home.join("include");
        let header = std::fs::read_to_string(include.join("cuda.h")).map_err(|error| {
            Error::new(format!("{}: {error}", include.join("cuda.h").display()))
        })?;
        let version = header
            .lines()
            .find_map(|line| line.strip_prefix("#define CUDA_VERSION "))
            .and_then(|number| number.trim().parse::<u32>().ok())
            .map(|number| (number / 1000, number % 1000 / 10))
            .ok_or_else(|| {
                Error::new(format!(
                    "{} names no CUDA_VERSION",
                    include.join("cuda.h").display()
                ))
            })?;
        let library_path = std::env::var_os("LIBRARY_PATH").unwrap_or_default();
        let symbols = std::env::split_paths(&library_path)
            .chain([home.join("lib/stubs"), bundled.join("stubs")])
            .find(|folder| folder.join("cuda.symbols").is_file())
            .ok_or_else(|| {
                Error::new(
                    "the names of CUDA's functions are not there; run `eval \"$(cargo xtask cuda-toolchain)\"`",
                )
            })?;
        Ok(Self {
            include,
            version,
            symbols,
        })
    }

    /// The names that cudarc declares for a library, one a line in a list beside the link stubs.
    pub(crate) fn symbols_of(&self, library: &str) -> Result<Vec<String>, Error> {
        let list = self.symbols.join(format!("{library}.symbols"));
        let text = std::fs::read_to_string(&list)
            .map_err(|error| Error::new(format!("{}: {error}", list.display())))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// The folder of the emulated driver.
pub(crate) fn emulator_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// The root of the project's own workspace.
pub fn workspace_root() -> &'static Path {
    emulator_root()
        .parent()
        .and_then(Path::parent)
        .unwrap_or(Path::new("."))
}

/// Cargo's target folder of the project.
pub(crate) fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => std::path::absolute(&folder).unwrap_or_else(|_| folder.into()),
        None => workspace_root().join("target"),
    }
}

/// Candle's own kernel sources, from where cargo keeps the package.
///
/// # Errors
///
/// If cargo cannot resolve the workspace (no network at the very first time, for one).
pub fn candle_kernels() -> Result<Vec<PathBuf>, Error> {
    let manifest = workspace_root().join("Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--all-features",
            "--locked",
            "--manifest-path",
        ])
        .arg(&manifest)
        .output()
        .map_err(|error| Error::new(format!("cannot start cargo: {error}")))?;
    if !output.status.success() {
        return Err(Error::new(format!(
            "cargo cannot resolve {}: {}",
            manifest.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| Error::new(format!("cargo metadata printed no JSON: {error}")))?;
    let folder = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "candle-kernels")
        .and_then(|package| Path::new(package["manifest_path"].as_str()?).parent())
        .map(|folder| folder.join("src"))
        .ok_or_else(|| Error::new("the dependency tree holds no candle-kernels"))?;
    CANDLE_FILES
        .iter()
        .map(|name| {
            let file = folder.join(format!("{name}.cu"));
            if file.is_file() {
                Ok(file)
            } else {
                Err(Error::new(format!(
                    "candle-kernels has no {}",
                    file.display()
                )))
            }
        })
        .collect()
}

/// Every `.cu` of the project's crates, in order of path.
///
/// # Errors
///
/// If a folder cannot be read.
pub fn project_kernels() -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut folders = vec![workspace_root().join("crates")];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .map_err(|error| Error::new(format!("{}: {error}", folder.display())))?;
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "cu") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
