//! LeNet-5 learns Fashion-MNIST with the defaults: every loss, more than one seed, through the command that a user types.

use crate::workspace::{root, text};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

const LOSSES: [&str; 3] = ["fused", "composed", "candle"];

/// PyTorch with the same recipe reaches 0.880 on average with a deviation of 0.005; this is three deviations below.
const ACCURACY: f64 = 0.865;

fn xtask(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["run", "--quiet", "--package", "xtask", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .arg("--")
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("cargo starts")
}

/// Five epochs with the defaults; the object that `train --json` prints.
fn train(loss: &str, seed: u64) -> Value {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let arguments = [
        "train",
        "--json",
        "--loss",
        loss,
        "--seed",
        &seed.to_string(),
    ];
    let output = xtask(directory.path(), &arguments);
    let (stdout, stderr) = text(&output);
    assert!(
        output.status.success(),
        "training with {loss}, seed {seed}: {}\n{stderr}",
        output.status
    );
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error} in:\n{stdout}"))
}

/// The runs of every loss with seeds 0, 1 and 2, one after the other: each uses all cores.
fn runs() -> &'static [(String, Value)] {
    static RUNS: OnceLock<Vec<(String, Value)>> = OnceLock::new();
    RUNS.get_or_init(|| {
        let pairs = LOSSES
            .iter()
            .flat_map(|loss| (0..3).map(move |seed| (*loss, seed)));
        pairs
            .map(|(loss, seed)| (format!("{loss}, seed {seed}"), train(loss, seed)))
            .collect()
    })
}

fn number(value: &Value, what: &str) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{what} is not a number: {value}"))
}

#[test]
fn five_epochs_reach_the_accuracy_of_the_recipe_with_every_loss_and_seed() {
    for (name, run) in runs() {
        let epochs = run["epochs"].as_array().expect("a list of epochs");
        assert_eq!(epochs.len(), 5, "{name}");
        let accuracy = number(&epochs[4]["test_accuracy"], "test_accuracy");
        assert!(accuracy >= ACCURACY, "{name} reached {accuracy}");
    }
}

#[test]
fn the_losses_of_the_first_epoch_agree() {
    for seed in 0..3 {
        let first: Vec<f64> = runs()
            .iter()
            .filter(|(name, _)| name.ends_with(&format!("seed {seed}")))
            .map(|(_, run)| number(&run["epochs"][0]["loss"], "loss"))
            .collect();
        assert_eq!(first.len(), LOSSES.len());
        let spread =
            |pick: fn(f64, f64) -> f64| first.iter().copied().reduce(pick).expect("three losses");
        assert!(
            spread(f64::max) - spread(f64::min) < 1e-2,
            "seed {seed}: {first:?}"
        );
    }
}

#[test]
fn another_seed_is_another_run() {
    let loss = |index: usize| number(&runs()[index].1["epochs"][0]["loss"], "loss");
    assert_ne!(loss(0), loss(1));
}

#[test]
fn a_file_that_the_run_names_holds_the_weights_under_the_names_of_pytorch() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = xtask(
        directory.path(),
        &["train", "--json", "--epochs", "1", "--limit-batches", "2"],
    );
    let (stdout, stderr) = text(&output);
    assert!(output.status.success(), "{stderr}");
    let run: Value = serde_json::from_str(&stdout).expect("one JSON object");
    let weights = directory
        .path()
        .join(run["final_weights"].as_str().expect("a path"));
    let bytes =
        std::fs::read(&weights).unwrap_or_else(|error| panic!("{}: {error}", weights.display()));
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: Value =
        serde_json::from_slice(&bytes[8..8 + length]).expect("a safetensors header");
    for layer in ["conv1", "conv2", "conv3", "fc1", "fc2"] {
        for kind in ["weight", "bias"] {
            assert_eq!(
                header[format!("{layer}.{kind}")]["dtype"],
                "F32",
                "{layer}.{kind}"
            );
        }
    }
}

#[test]
fn bad_input_ends_with_the_exit_code_of_its_kind_and_no_backtrace() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "not a directory").expect("a file");
    let file = file.to_str().expect("a printable path");
    for (code, arguments) in [
        (2, vec!["train", "--no-such-flag"]),
        (3, vec!["train", "--data", file]),
        (4, vec!["train", "--lr", "1e6"]),
        (1, vec!["train", "--run-dir", file]),
        (3, vec!["verify-training", "--golden", file]),
        (2, vec!["verify-grads", "--no-such-flag"]),
        (3, vec!["verify-grads", "--golden", file]),
    ] {
        let output = xtask(directory.path(), &arguments);
        let (_, stderr) = text(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        for noise in ["panicked", "stack backtrace", "   0: "] {
            assert!(!stderr.contains(noise), "{arguments:?}: {stderr}");
        }
    }
}
