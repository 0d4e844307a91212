//! Golden files: right ones pass, planted errors are caught, malformed ones are refused with the field's name.

use super::{BUILT_IN, cases, file};
use crate::report::{CaseResult, Status, Summary};
use candle_core::Device;
use serde_json::Value;

fn first_case() -> Value {
    let file: Value = serde_json::from_str(BUILT_IN).expect("the built-in file is JSON");
    file["cases"][0].clone()
}

fn file_of(case: &Value) -> String {
    serde_json::json!({ "format": "golden-losses-1", "source": "a test", "cases": [case] })
        .to_string()
}

fn summary_of(case: &Value) -> Summary {
    let mut summary = Summary::default();
    for case in cases(&file_of(case), "test").expect("the file is well-formed") {
        summary.push(CaseResult::of(&case, &Device::Cpu));
    }
    summary
}

#[test]
fn a_wrong_loss_and_a_wrong_gradient_are_caught() {
    assert_eq!(summary_of(&first_case()).failed, 0);
    for (field, index) in [("loss", 0), ("grad_input", 7)] {
        let mut case = first_case();
        let right = case[field][index].as_f64().expect("a number");
        case[field][index] = (right + 1e-9).into();
        let summary = summary_of(&case);
        assert_eq!(summary.failed, 1, "{field}");
        let reason = summary.cases[0]
            .reason
            .clone()
            .expect("a failure has a reason");
        assert!(reason.contains(&format!("at element {index}")), "{reason}");
    }
}

#[test]
fn null_is_nan_and_nan_equals_nan_only() {
    let mut case = first_case();
    case["input"][0] = Value::Null;
    assert_eq!(
        summary_of(&case).failed,
        1,
        "a NaN logit makes another loss"
    );
    case["loss"][0] = Value::Null;
    let parsed = file::parse(&file_of(&case)).expect("null is a number");
    assert!(parsed[0].input[0].is_nan() && parsed[0].loss[0].is_nan());
    for element in 0..5 {
        case["grad_input"][element] = Value::Null;
    }
    assert_eq!(
        summary_of(&case).failed,
        0,
        "a NaN row has a NaN loss and gradient"
    );
}

#[test]
fn unknown_ops_and_options_are_skipped_and_counted() {
    let mut case = first_case();
    case["op"] = "loss_of_the_future".into();
    let summary = summary_of(&case);
    assert_eq!((summary.passed, summary.failed, summary.skipped), (0, 0, 1));
    assert_eq!(summary.cases[0].status, Status::Skipped);
    assert!(
        summary.cases[0]
            .reason
            .as_ref()
            .is_some_and(|r| r.contains("loss_of_the_future"))
    );
    case["op"] = "huber".into();
    case["params"] = serde_json::json!({ "sharpness": 3.0 });
    assert_eq!(summary_of(&case).skipped, 1);
}

#[test]
fn malformed_files_are_refused_with_case_field_expected_and_found() {
    let with = |field: &str, value: Value| {
        let mut case = first_case();
        case[field] = value;
        file_of(&case)
    };
    let without = |field: &str| {
        let mut case = first_case();
        case.as_object_mut().expect("an object").remove(field);
        file_of(&case)
    };
    let refused = [
        ("not JSON".to_string(), vec!["expected JSON"]),
        ("[]".to_string(), vec!["expected an object"]),
        ("{}".to_string(), vec!["\"format\"", "no such field"]),
        (
            r#"{"format": "golden-losses-9", "cases": []}"#.to_string(),
            vec!["golden-losses-1", "golden-losses-9"],
        ),
        (
            r#"{"format": "golden-losses-1"}"#.to_string(),
            vec!["\"cases\"", "expected an array"],
        ),
        (without("name"), vec!["case 0", "\"name\"", "a string"]),
        (
            without("grad_output"),
            vec!["worked_example_3x5", "\"grad_output\"", "no such field"],
        ),
        (
            with("input_shape", serde_json::json!([3, 6])),
            vec!["\"input\"", "18 numbers", "found 15"],
        ),
        (
            with("input_shape", serde_json::json!([-1, 5])),
            vec!["\"input_shape\"", "sizes"],
        ),
        (
            with("input_shape", serde_json::json!([1u64 << 40, 1u64 << 40])),
            vec!["\"input_shape\"", "2^32"],
        ),
        (
            with("loss", serde_json::json!([true])),
            vec!["\"loss\"", "a boolean"],
        ),
        (
            with("target", serde_json::json!([0.5, 1, 2])),
            vec!["\"target\"", "whole numbers", "0.5"],
        ),
        (
            with("target_kind", "guesses".into()),
            vec!["\"target_kind\"", "guesses"],
        ),
        (
            with("reduction", "median".into()),
            vec!["\"reduction\"", "median"],
        ),
        (
            with("ignore_index", 1.5.into()),
            vec!["\"ignore_index\"", "an integer"],
        ),
        (
            with("label_smoothing", "much".into()),
            vec!["\"label_smoothing\"", "a number"],
        ),
        (
            with("params", serde_json::json!([1])),
            vec!["\"params\"", "an object"],
        ),
    ];
    for (text, parts) in refused {
        let error = cases(&text, "test").expect_err("the file is malformed");
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }
}
