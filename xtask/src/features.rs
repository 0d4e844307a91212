//! Combinations of features, each compiled or, with CUDA, resolved: what a crate needs has to be named by the feature that needs it.

use crate::ci::{PUBLISHED, succeed};
use crate::exit::{self, Failure};
use crate::tools;
use serde_json::Value;

/// Needs the toolkit, and is checked apart from the others.
const CUDA: &str = "cuda";

/// Without any feature, and with each alone, for every published crate and every other that has features.
pub(crate) fn check() -> Result<(), Failure> {
    for package in tools::packages()? {
        let Some(name) = package["name"].as_str() else {
            continue;
        };
        let features: Vec<_> = features_of(&package)
            .into_iter()
            .filter(|feature| *feature != "default" && *feature != CUDA)
            .collect();
        if features.is_empty() && !PUBLISHED.contains(&name) {
            continue;
        }
        for feature in std::iter::once(None).chain(features.into_iter().map(Some)) {
            let mut command = tools::cargo();
            command
                .args(["check", "--release", "--package", name])
                .args(["--no-default-features", "--features", feature.unwrap_or("")]);
            exit::note(&format!(
                "-- {name} with {}",
                feature.unwrap_or("no feature")
            ));
            succeed(command)?;
        }
    }
    Ok(())
}

/// The feature `cuda` of every published crate that has it, alone, turns on candle's and brings what the build script calls.
///
/// Asked of cargo's resolver and not of the compiler: each crate by itself would have candle's kernels compiled anew, ten minutes
/// of nvcc. The code is compiled with the features of the whole workspace.
pub(crate) fn check_cuda() -> Result<(), Failure> {
    for package in tools::packages()? {
        let name = package["name"].as_str().unwrap_or_default();
        if !PUBLISHED.contains(&name) || !features_of(&package).contains(&CUDA) {
            continue;
        }
        exit::note(&format!("-- {name} with {CUDA}"));
        let output = tools::cargo()
            .current_dir(tools::root())
            .args(["tree", "--quiet", "--package", name])
            .args(["--no-default-features", "--features", CUDA])
            .args(["--edges", "normal,build", "--prefix", "none"])
            .args(["--format", "{p} {f}"])
            .output()
            .map_err(|error| Failure::run(format!("cannot start cargo: {error}")))?;
        if !output.status.success() {
            return Err(Failure::check(
                String::from_utf8_lossy(&output.stderr).into_owned(),
            ));
        }
        let tree = String::from_utf8_lossy(&output.stdout).into_owned();
        // A line is `NAME vVERSION FEATURE,FEATURE`.
        let has = |dependency: &str, feature: Option<&str>| {
            tree.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some(dependency)
                    && feature.is_none_or(|feature| {
                        words.any(|word| word.split(',').any(|word| word == feature))
                    })
            })
        };
        if !has("candle-core", Some(CUDA)) || !has("cudaforge", None) {
            return Err(Failure::check(format!(
                "{name}: the feature {CUDA} alone has to name candle-core/cuda and dep:cudaforge"
            )));
        }
    }
    Ok(())
}

/// The features of a package, as its manifest names them.
fn features_of(package: &Value) -> Vec<&str> {
    package["features"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect()
}
