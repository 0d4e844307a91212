//! Building the workspace with CUDA: one choice of features and one environment for every command that does so, since another
//! would compile candle, and its kernels with nvcc, anew.

use crate::cuda_toolchain::{self, Environment};
use crate::exit::Failure;
use crate::tools::{self, Executable};
use std::path::PathBuf;
use std::process::Command;

/// How the workspace is built with CUDA.
pub(crate) struct CudaBuild {
    pub(crate) toolchain: Environment,
    /// `PACKAGE/cuda` of every package that has the feature, separated by commas.
    features: String,
    /// A target folder of its own, where it is not cargo's.
    target: Option<PathBuf>,
}

impl CudaBuild {
    /// With the toolchain that is here, or is brought.
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self {
            features: features()?,
            toolchain: cuda_toolchain::environment_of_builds()?,
            target: None,
        })
    }

    /// For another compute capability, in a target folder of its own: in a shared one each would throw away the other's
    /// kernels, which take nvcc minutes.
    pub(crate) fn for_compute_capability(mut self, capability: &str) -> Self {
        if self.toolchain.compute_capability != capability {
            self.toolchain = self.toolchain.with_compute_capability(capability);
            self.target = Some(tools::target_folder().join(format!("compute-{capability}")));
        }
        self
    }

    /// A cargo with the environment of these builds, at the root.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = tools::cargo();
        cargo.current_dir(tools::root());
        self.toolchain.apply(&mut cargo);
        if let Some(target) = &self.target {
            cargo.env("CARGO_TARGET_DIR", target);
        }
        cargo
    }

    /// `cargo SUBCOMMAND` of the whole workspace in release mode, with the feature `cuda` of every package that has it.
    pub(crate) fn arguments<'a>(&'a self, subcommand: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let common = [
            subcommand,
            "--release",
            "--workspace",
            "--features",
            &self.features,
        ];
        common.iter().chain(more).copied().collect()
    }

    /// Builds, and returns the executables.
    pub(crate) fn executables(
        &self,
        subcommand: &str,
        more: &[&str],
    ) -> Result<Vec<Executable>, Failure> {
        tools::build_executables_with(self.cargo(), &self.arguments(subcommand, more))
    }

    /// The integration tests for CUDA, by name.
    pub(crate) fn cuda_tests(&self) -> Result<Vec<Executable>, Failure> {
        let mut tests = self.executables("test", &["--quiet", "--no-run", "--test", "cuda*"])?;
        // Cargo builds the programs of a package along with its tests.
        tests.retain(|test| test.name.starts_with("cuda"));
        Ok(tests)
    }

    /// The command that builds the emulated driver and becomes a program on it.
    pub(crate) fn emulate(&self) -> Result<PathBuf, Failure> {
        // With the features of the whole workspace, or cargo would build its dependency a second time.
        self.executables("build", &["--quiet", "--bin", "emulate"])?
            .pop()
            .map(|executable| executable.path)
            .ok_or_else(|| Failure::run("cargo built emulate and named no executable"))
    }

    /// The folder with the emulated driver and every kernel.
    pub(crate) fn emulated_driver(&self) -> Result<PathBuf, Failure> {
        let mut command = Command::new(self.emulate()?);
        let output = self
            .toolchain
            .apply(command.arg("build"))
            .output()
            .map_err(|error| Failure::run(format!("cannot start emulate: {error}")))?;
        if !output.status.success() {
            return Err(Failure::run(format!(
                "the emulated driver does not build: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        Ok(PathBuf::from(
            String::from_utf8_lossy(&output.stdout).trim(),
        ))
    }
}

/// `PACKAGE/cuda` of every package of the workspace that has the feature.
fn features() -> Result<String, Failure> {
    let packages = tools::packages()?;
    let features: Vec<_> = packages
        .iter()
        .filter(|package| package["features"]["cuda"].is_array())
        .filter_map(|package| package["name"].as_str())
        .map(|name| format!("{name}/cuda"))
        .collect();
    if features.is_empty() {
        return Err(Failure::run(
            "no package of the workspace has the feature cuda",
        ));
    }
    Ok(features.join(","))
}
