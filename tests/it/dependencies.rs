//! What other projects get when they depend on the loss crate.

use crate::workspace::{cargo, text};

fn tree(package: &str) -> Vec<String> {
    let output = cargo()
        .args([
            "tree",
            "--package",
            package,
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .output()
        .expect("cargo tree starts");
    let (stdout, stderr) = text(&output);
    assert!(output.status.success(), "cargo tree failed: {stderr}");
    stdout
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_loss_crate_brings_neither_candle_nn_nor_candle_datasets() {
    let names = tree("loss-crate-alone");
    assert!(
        names.iter().any(|name| name == "candle-losses"),
        "the crate depends on candle-losses"
    );
    for absent in [
        "candle-nn",
        "candle-datasets",
        "candle-gradcheck",
        "lenet5",
        "fashion-mnist",
    ] {
        assert!(
            names.iter().all(|name| name != absent),
            "{absent} is in the tree of candle-losses"
        );
    }
}

#[test]
fn the_check_above_can_fail() {
    assert!(tree("trainer").iter().any(|name| name == "candle-datasets"));
}

#[test]
fn xtask_is_free_of_candle() {
    let names = tree("xtask");
    assert!(
        names.iter().all(|name| !name.starts_with("candle")),
        "xtask depends on candle: {names:?}"
    );
}

#[test]
fn the_gradient_checker_knows_none_of_our_ops() {
    let names = tree("candle-gradcheck");
    for absent in [
        "candle-losses",
        "candle-vision-ops",
        "candle-simd",
        "candle-nn",
    ] {
        assert!(
            names.iter().all(|name| name != absent),
            "{absent} is in the tree of candle-gradcheck"
        );
    }
}
