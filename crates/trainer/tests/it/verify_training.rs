//! `verify-training`: PyTorch's run is reproduced, and a wrong or malformed record is told from it.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use crate::support::{expect, json, temporary};

const GOLDEN: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/golden/lenet5_trajectory.safetensors"
);

#[test]
fn pytorchs_run_is_reproduced() {
    let folder = temporary();
    let finished = expect(
        0,
        folder.path(),
        &["verify-training", "--golden", GOLDEN, "--json"],
    );
    let report = json(&finished);
    assert_eq!(report["passed"], true);
    assert_eq!(report["steps"], 40);
    let below = |precision: &str, key: &str, limit: f64| {
        let error = report[precision][key].as_f64().expect("a number");
        assert!(
            error > 0.0 && error <= limit,
            "{precision} {key}: {error:e}"
        );
    };
    below("f64", "max_logit_error", 1e-10);
    below("f64", "max_grad_error", 1e-10);
    below("f64", "max_loss_error", 1e-9);
    below("f64", "max_weight_error", 1e-8);
    below("f32", "max_loss_relative_error", 2e-2);
    below("f32", "mean_weight_error", 1e-3);
}

/// The golden run cut to its first step, changed and written as a record.
fn record(path: &Path, change: impl FnOnce(&mut HashMap<String, Tensor>)) {
    let mut tensors = candle_core::safetensors::load(GOLDEN, &Device::Cpu).expect("golden file");
    let losses = tensors["losses"].narrow(0, 0, 1).expect("one loss");
    tensors.insert("losses".into(), losses.copy().expect("a copy"));
    change(&mut tensors);
    let metadata = [("batch", "128"), ("steps", "1"), ("first_index", "0")]
        .map(|(key, value)| (key.to_string(), value.to_string()));
    let bytes = safetensors::serialize(&tensors, Some(metadata.into())).expect("serialises");
    std::fs::write(path, bytes).expect("writable");
}

#[test]
fn a_record_that_differs_fails_with_5_and_says_where() {
    let folder = temporary();
    let path = folder.path().join("r.safetensors");
    // The final weights are those after forty steps, so one step cannot reach them; everything of step 0 agrees.
    record(&path, |_| {});
    let finished = expect(
        5,
        folder.path(),
        &["verify-training", "--golden", "r.safetensors", "--json"],
    );
    let report = json(&finished);
    assert_eq!(report["passed"], false);
    assert!(report["f64"]["max_grad_error"].as_f64().expect("a number") < 1e-10);
    assert!(
        report["f64"]["max_weight_error"]
            .as_f64()
            .expect("a number")
            > 1e-3
    );

    record(&path, |tensors| {
        let grad = &tensors["step0.grad.fc1.bias"];
        tensors.insert(
            "step0.grad.fc1.bias".into(),
            (grad * 1.001).expect("scaled"),
        );
    });
    let finished = expect(
        5,
        folder.path(),
        &["verify-training", "--golden", "r.safetensors"],
    );
    let line = finished
        .stdout
        .lines()
        .find(|line| line.contains("gradients"));
    assert!(
        line.expect("the line").contains("FAILED"),
        "{}",
        finished.stdout
    );
}

#[test]
fn a_malformed_record_exits_with_3() {
    let folder = temporary();
    let verify = |name: &str| expect(3, folder.path(), &["verify-training", "--golden", name]);
    assert!(verify("nowhere").stderr.contains("nowhere"));
    std::fs::write(folder.path().join("text"), b"{}").expect("writable");
    assert!(
        verify("text")
            .stderr
            .contains("text: not a safetensors file")
    );
    record(&folder.path().join("r"), |tensors| {
        let zeros = Tensor::zeros((8, 1, 32, 32), DType::U8, &Device::Cpu).expect("zeros");
        tensors.insert("step0.images_u8".into(), zeros);
    });
    assert!(
        verify("r")
            .stderr
            .contains("differs from the training images")
    );
    record(&folder.path().join("r"), |tensors| {
        drop(tensors.remove("init.conv1.weight"))
    });
    assert!(
        verify("r")
            .stderr
            .contains("missing tensor init.conv1.weight")
    );
}
