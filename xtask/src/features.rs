//! Combinations of features, each compiled: what a crate needs has to be named by the feature that needs it.

use crate::ci::{PUBLISHED, succeed};
use crate::cuda_build::CudaBuild;
use crate::exit::{self, Failure};
use crate::tools;
use serde_json::Value;

/// Compiled with the toolkit in the environment, and apart from the others.
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

/// With `cuda` alone, for every published crate that has it. The others have it from the build of the whole workspace.
pub(crate) fn check_cuda() -> Result<(), Failure> {
    let build = CudaBuild::new()?;
    for package in tools::packages()? {
        let name = package["name"].as_str().unwrap_or_default();
        if PUBLISHED.contains(&name) && features_of(&package).contains(&CUDA) {
            let mut command = build.cargo();
            command
                .args(["check", "--release", "--package", name])
                .args(["--no-default-features", "--features", CUDA]);
            exit::note(&format!("-- {name} with {CUDA}"));
            succeed(command)?;
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
