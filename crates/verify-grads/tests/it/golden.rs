//! `--golden`: right files pass, a planted wrong number exits with 5, an unusable file with 3.

use crate::{code, stderr, stdout, verify_grads};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn golden_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/losses.json")
}

/// Writes the golden file with `change` applied to its first case.
fn changed(folder: &Path, change: impl Fn(&mut Value)) -> String {
    let text = std::fs::read_to_string(golden_file()).expect("the golden file is there");
    let mut file: Value = serde_json::from_str(&text).expect("it is JSON");
    let mut case = file["cases"][0].take();
    change(&mut case);
    file["cases"] = json!([case]);
    let path = folder.join("changed.json");
    std::fs::write(&path, file.to_string()).expect("the folder can be written");
    path.to_string_lossy().into_owned()
}

#[test]
fn every_recorded_case_passes_and_only_linear_cross_entropy_is_skipped() {
    let path = golden_file();
    let output = verify_grads(&[
        "--golden",
        &path.to_string_lossy(),
        "--filter",
        "golden/",
        "--json",
    ]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let summary: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let text = std::fs::read_to_string(&path).expect("the golden file is there");
    let file: Value = serde_json::from_str(&text).expect("it is JSON");
    let recorded = file["cases"].as_array().expect("an array");
    let cases = summary["cases"].as_array().expect("an array");
    let exact = cases.iter().filter(|case| case["dtype"] == "f64");
    assert_eq!(exact.count(), recorded.len());
    for case in cases {
        let expected = if case["op"] == "linear_cross_entropy" {
            "skipped"
        } else {
            "passed"
        };
        assert_eq!(case["status"], expected, "{case}");
    }
}

#[test]
fn the_catalogue_runs_beside_a_given_file() {
    let path = golden_file();
    let output = verify_grads(&[
        "--golden",
        &path.to_string_lossy(),
        "--filter",
        "ma",
        "--json",
    ]);
    let summary: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let names: Vec<&str> = summary["cases"]
        .as_array()
        .expect("an array")
        .iter()
        .filter_map(|case| case["name"].as_str())
        .collect();
    assert!(names.iter().any(|name| name.starts_with("golden/")));
    assert!(names.iter().any(|name| name.starts_with("max_pool2d/")));
}

#[test]
fn files_may_be_given_several_times() {
    let path = golden_file();
    let path = path.to_string_lossy();
    let count = |arguments: &[&str]| {
        let output = verify_grads(arguments);
        let summary: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
        summary["passed"].as_u64().expect("a count")
    };
    let once = count(&["--json", "--filter", "worked", "--golden", &path]);
    let twice = count(&[
        "--json", "--filter", "worked", "--golden", &path, "--golden", &path,
    ]);
    assert_eq!((once, twice), (2, 4));
}

#[test]
fn a_wrong_number_exits_with_5_and_says_where() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (field, element) in [("loss", 0), ("grad_input", 4)] {
        let path = changed(folder.path(), |case| {
            let right = case[field][element].as_f64().expect("a number");
            case[field][element] = json!(right * (1.0 + 1e-6));
        });
        let output = verify_grads(&["--golden", &path, "--filter", "worked_example"]);
        assert_eq!(code(&output), Some(5), "{}", stdout(&output));
        let text = stdout(&output);
        assert!(
            text.contains("FAILED") && text.contains(&format!("at element {element}")),
            "{text}"
        );
        assert!(text.ends_with("1 passed, 1 failed, 0 skipped\n"), "{text}");
    }
}

#[test]
fn an_unusable_file_exits_with_3_and_names_path_and_field() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let short = changed(folder.path(), |case| {
        case["grad_input"].as_array_mut().expect("an array").pop();
    });
    let not_json = folder.path().join("not.json");
    std::fs::write(&not_json, "{\"format\": ").expect("the folder can be written");
    let binary = folder.path().join("binary.json");
    std::fs::write(&binary, [0xff, 0xfe, 0x00]).expect("the folder can be written");
    let missing = folder.path().join("missing.json");
    for (path, parts) in [
        (
            short,
            vec![
                "changed.json",
                "worked_example_3x5",
                "\"grad_input\"",
                "15 numbers",
                "found 14",
            ],
        ),
        (
            not_json.to_string_lossy().into_owned(),
            vec!["not.json", "expected JSON"],
        ),
        (
            binary.to_string_lossy().into_owned(),
            vec!["binary.json", "cannot be read"],
        ),
        (
            missing.to_string_lossy().into_owned(),
            vec!["missing.json", "cannot be read"],
        ),
        (
            folder.path().to_string_lossy().into_owned(),
            vec!["cannot be read"],
        ),
    ] {
        let output = verify_grads(&["--golden", &path, "--json"]);
        assert_eq!(code(&output), Some(3), "{path}");
        assert!(stdout(&output).is_empty());
        for part in parts {
            assert!(
                stderr(&output).contains(part),
                "{part:?} is not in {:?}",
                stderr(&output)
            );
        }
    }
}
