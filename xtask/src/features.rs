//! Combinations of features, each compiled or asked of cargo's resolver: what a crate needs has to be named by the feature that
//! needs it.

use crate::ci::{PUBLISHED, succeed};
use crate::exit::{self, Failure};
use crate::tools;
use serde_json::Value;
use std::collections::HashSet;

/// Needs the toolkit, and is checked apart from the others.
const CUDA: &str = "cuda";

/// Without any feature, and with each alone, for every published crate and every other that has features.
///
/// Compiled by itself a crate gets dependencies with other features than in the workspace, if only far below, and hundreds of
/// crates would be compiled anew. Where the crate and all that it names as dependencies have the very features that they have in
/// the workspace, the compiler would be shown the same code again that `clippy` and `test` have shown it, and is not asked.
pub(crate) fn check() -> Result<(), Failure> {
    let in_workspace: HashSet<_> = tree(&["--workspace"])?.into_iter().collect();
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
            let chosen = [
                "--package",
                name,
                "--no-default-features",
                "--features",
                feature.unwrap_or(""),
            ];
            let what = format!("{name} with {}", feature.unwrap_or("no feature"));
            let alone = tree(&[&chosen[..], &["--depth", "1"]].concat())?;
            if alone.iter().all(|line| in_workspace.contains(line)) {
                exit::note(&format!(
                    "-- {what}: the features that it has in the workspace"
                ));
                continue;
            }
            exit::note(&format!("-- {what}"));
            let mut command = tools::cargo();
            command.args(["check", "--release"]).args(chosen);
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
        let tree = tree(&[
            "--package",
            name,
            "--no-default-features",
            "--features",
            CUDA,
        ])?;
        // A line is `NAME vVERSION FEATURE,FEATURE`.
        let has = |dependency: &str, feature: Option<&str>| {
            tree.iter().any(|line| {
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

/// What cargo resolves for `arguments`, dependencies of builds included: a line `NAME vVERSION FEATURE,FEATURE` each.
fn tree(arguments: &[&str]) -> Result<Vec<String>, Failure> {
    let output = tools::cargo()
        .current_dir(tools::root())
        .args(["tree", "--quiet"])
        .args(arguments)
        .args(["--edges", "normal,build", "--prefix", "none"])
        .args(["--format", "{p} {f}"])
        .output()
        .map_err(|error| Failure::run(format!("cannot start cargo: {error}")))?;
    if !output.status.success() {
        return Err(Failure::check(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    let lines = String::from_utf8_lossy(&output.stdout)
        .lines()
        // What is shown a second time, without its own dependencies.
        .map(|line| line.trim_end_matches(" (*)"))
        .map(without_default)
        .collect();
    Ok(lines)
}

/// `default` stands for other features and is none by itself.
fn without_default(line: &str) -> String {
    let (package, features) = line.rsplit_once(' ').unwrap_or((line, ""));
    let features: Vec<_> = features
        .split(',')
        .filter(|feature| *feature != "default")
        .collect();
    format!("{package} {}", features.join(","))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_no_feature_of_its_own() {
        for (line, expected) in [
            ("a v1.0.0 default,std", "a v1.0.0 std"),
            ("a v1.0.0 default", "a v1.0.0 "),
            ("a v1.0.0 ", "a v1.0.0 "),
            ("a v1.0.0 (/b c) default-x", "a v1.0.0 (/b c) default-x"),
        ] {
            assert_eq!(without_default(line), expected);
        }
    }
}
