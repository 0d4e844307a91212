//! Running the program on the emulated driver.

use emulate::{Checks, Emulator, Kernels};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// A kernel file of this package.
pub(crate) fn kernels(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("kernels")
        .join(name)
}

pub(crate) fn emulator() -> &'static Emulator {
    static EMULATOR: OnceLock<Emulator> = OnceLock::new();
    EMULATOR.get_or_init(|| {
        // Where the command keeps what it builds, so that candle's kernels are compiled once.
        Emulator::new(emulate::default_folder()).unwrap_or_else(|error| panic!("{error}"))
    })
}

/// The folder with the driver, candle's kernels and those of this package.
fn folder(checks: Checks) -> &'static Path {
    // A build that fails is not tried again by every test.
    type Built = OnceLock<Result<PathBuf, String>>;
    static CHECKED: Built = OnceLock::new();
    static PLAIN: Built = OnceLock::new();
    let built = match checks {
        Checks::On => &CHECKED,
        Checks::Off => &PLAIN,
    };
    let build = || {
        let losses = emulate::workspace_root().join("crates/losses/src");
        let own = ["sample.cu", "controls.cu", "log_cosh.cu"]
            .map(|name| Kernels::of(kernels(name)).include(&losses));
        // What adds up the parts of a pointwise loss's sum is candle-losses' own.
        let total = losses.join("pointwise/pointwise_total.cu");
        // Those that are not of this package just as the command builds them, or they would be compiled a second time.
        let all: Vec<_> = emulate::candle_kernels()?
            .into_iter()
            .chain([total])
            .map(Kernels::of)
            .chain(own)
            .collect();
        emulator().build(&all, checks)
    };
    match built.get_or_init(|| build().map_err(|error| error.to_string())) {
        Ok(folder) => folder,
        Err(error) => panic!("{error}"),
    }
}

/// The program on the emulated driver, with checks or without.
pub(crate) fn program(arguments: &[&str], checks: Checks) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emulated-app"));
    command.args(arguments);
    for variable in [
        "CUDA_EMU_ORDER",
        "CUDA_EMU_FAULTS",
        "CUDA_EMU_LEAKS",
        "CUDA_EMU_KERNELS",
        "CUDA_EMU_LOG",
    ] {
        command.env_remove(variable);
    }
    emulate::emulated(&mut command, folder(checks));
    command
}

/// What a finished program wrote to standard error.
pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs and expects success.
pub(crate) fn succeeds(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{stdout}\n{}",
        output.status,
        errors(&output)
    );
    stdout
}
