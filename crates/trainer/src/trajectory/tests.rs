//! Tests of the replay's arithmetic and of what is refused as a record.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::{Golden, largest};

const GOLDEN: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/golden/lenet5_trajectory.safetensors"
);

#[test]
fn a_nan_among_differences_is_not_passed_over() {
    assert_eq!(largest([0.5, 2.0, 1.0]), 2.0);
    assert!(largest([f64::NAN, 1.0]).is_nan());
    assert!(largest([1.0, f64::NAN, 2.0]).is_nan());
}

#[test]
fn the_recorded_run_is_read_whole() {
    let golden = Golden::read(Path::new(GOLDEN)).expect("well-formed");
    assert_eq!(
        (golden.batch_size, golden.steps, golden.first_index),
        (128, 40, 0)
    );
    assert_eq!(golden.losses.len(), 40);
    assert_eq!(golden.lr, 1e-3);
}

/// The golden file's tensors and metadata with a change, written to a file and read as a record.
fn refused(
    change: impl FnOnce(&mut HashMap<String, Tensor>, &mut HashMap<String, String>),
) -> String {
    let mut tensors = candle_core::safetensors::load(GOLDEN, &Device::Cpu).expect("golden file");
    let mut metadata: HashMap<String, String> =
        [("batch", "128"), ("steps", "40"), ("first_index", "0")]
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .into();
    change(&mut tensors, &mut metadata);
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("record.safetensors");
    let bytes = safetensors::serialize(&tensors, Some(metadata)).expect("serialises");
    std::fs::write(&path, bytes).expect("writable");
    let error = Golden::read(&path).expect_err("must be refused");
    assert_eq!(error.exit_code(), 3);
    assert!(error.message().contains("record.safetensors"), "{error}");
    error.message()
}

#[test]
fn a_malformed_record_is_refused_with_what_is_wrong() {
    let message = refused(|tensors, _| drop(tensors.remove("final.fc2.bias")));
    assert!(
        message.contains("missing tensor final.fc2.bias"),
        "{message}"
    );
    let message = refused(|_, metadata| drop(metadata.remove("steps")));
    assert!(message.contains("metadata steps"), "{message}");
    let message = refused(|_, metadata| drop(metadata.insert("batch".into(), "many".into())));
    assert!(
        message.contains("metadata batch") && message.contains("many"),
        "{message}"
    );
    let message = refused(|_, metadata| drop(metadata.insert("steps".into(), "0".into())));
    assert!(message.contains("metadata steps"), "{message}");
    let message = refused(|_, metadata| drop(metadata.insert("steps".into(), "41".into())));
    assert!(
        message.contains("tensor losses: expected F64 of shape [41]"),
        "{message}"
    );
    let message = refused(|tensors, _| {
        let transposed = Tensor::zeros((84, 10), DType::F32, &Device::Cpu).expect("tensor");
        tensors.insert("init.fc2.weight".into(), transposed);
    });
    assert!(message.contains("init.fc2.weight"), "{message}");
}
