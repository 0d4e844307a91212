//! The whole catalogue passes; table, JSON, filter, and bad usage.

use crate::{code, stderr, stdout, verify_grads};
use serde_json::Value;
use std::collections::HashSet;
use std::process::{Command, Stdio};

#[test]
fn everything_passes_and_the_last_line_is_the_summary() {
    let output = verify_grads(&["--device", "cpu"]);
    let text = stdout(&output);
    let failed: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("FAILED"))
        .collect();
    assert_eq!(code(&output), Some(0), "{failed:#?}");
    let last = text.lines().last().expect("there is output");
    let words: Vec<&str> = last
        .split([' ', ','])
        .filter(|word| !word.is_empty())
        .collect();
    let [passed, "passed", "0", "failed", skipped, "skipped"] = words.as_slice() else {
        panic!("{last}");
    };
    let number = |text: &str| text.parse::<usize>().expect("a count");
    // A header and the summary, and a line a case.
    assert_eq!(text.lines().count(), 2 + number(passed) + number(skipped));
    assert!(number(passed) > 2_400, "{last}");
    let second = text.lines().filter(|line| line.contains("/second_order/"));
    assert!(second.filter(|line| line.ends_with("passed")).count() > 300);
    let skipped: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("  skipped: "))
        .collect();
    assert!(
        skipped
            .iter()
            .all(|line| line.contains("linear_cross_entropy")),
        "{skipped:#?}"
    );
}

#[test]
fn json_is_one_object_of_the_documented_form() {
    let output = verify_grads(&["--json", "--filter", "worked_example"]);
    assert_eq!((code(&output), stderr(&output).as_str()), (Some(0), ""));
    let summary: Value =
        serde_json::from_str(&stdout(&output)).expect("standard output is one JSON value");
    let keys = |value: &Value| {
        value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect::<HashSet<String>>()
    };
    let set = |names: &[&str]| {
        names
            .iter()
            .map(ToString::to_string)
            .collect::<HashSet<String>>()
    };
    assert_eq!(
        keys(&summary),
        set(&["passed", "failed", "skipped", "cases"])
    );
    let cases = summary["cases"].as_array().expect("an array");
    assert_eq!(summary["passed"], cases.len());
    for case in cases {
        assert_eq!(
            keys(case),
            set(&[
                "name",
                "op",
                "dtype",
                "device",
                "status",
                "max_error",
                "reason"
            ])
        );
        assert_eq!(case["status"], "passed");
        assert!(case["max_error"].as_f64().is_some_and(|error| error < 1e-5));
        assert!(case["reason"].is_null());
    }
}

#[test]
fn second_derivatives_are_in_the_one_json_object() {
    let name = "mse/second_order/plain/mean/f64";
    for filter in ["mse/", name] {
        let output = verify_grads(&["--json", "--filter", filter]);
        assert_eq!((code(&output), stderr(&output).as_str()), (Some(0), ""));
        let summary: Value = serde_json::from_str(&stdout(&output)).expect("one JSON value");
        let cases = summary["cases"].as_array().expect("an array");
        let case = cases.iter().find(|case| case["name"] == name);
        assert_eq!(case.expect("the case")["status"], "passed");
        assert_eq!(cases.len() == 1, filter == name);
        assert_eq!(summary["passed"], cases.len());
    }
}

#[test]
fn first_order_is_checked_as_users_train_and_second_order_where_graphs_are_kept() {
    let name = "mse/second_order/plain/sum/f64";
    // Without the variable the process that is meant for second order finds nothing to differentiate.
    let output = verify_grads(&["--filter", name, "--keeping-graphs"]);
    let text = stdout(&output);
    assert_eq!(code(&output), Some(5), "{text}");
    assert!(text.contains("CANDLE_GRAD_DO_NOT_DETACH"), "{text}");
    let output = verify_grads(&["--filter", name]);
    assert_eq!(code(&output), Some(0), "{}", stdout(&output));
}

#[test]
fn names_are_unique() {
    let output = verify_grads(&["--json", "--filter", "cross_entropy"]);
    let summary: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let cases = summary["cases"].as_array().expect("an array");
    let names: HashSet<&str> = cases
        .iter()
        .filter_map(|case| case["name"].as_str())
        .collect();
    assert_eq!(names.len(), cases.len());
}

#[test]
fn the_catalogue_names_every_loss_op_and_parameter() {
    let names: Vec<String> = verify_grads::catalogue()
        .into_iter()
        .map(|case| case.name)
        .collect();
    let unique: HashSet<&String> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
    let losses = [
        "cross_entropy",
        "nll",
        "mse",
        "l1",
        "huber",
        "smooth_l1",
        "kl_div",
        "poisson_nll",
        "soft_margin",
        "binary_cross_entropy_with_logits",
        "focal",
    ];
    let forms = ["fused", "composed", "second_order"];
    let losses = losses
        .iter()
        .flat_map(|loss| forms.map(|form| format!("{loss}/{form}/")));
    let ops = [
        "cross_entropy/agreement/",
        "max_pool2d/",
        "conv2d/",
        "conv2d_relu_max_pool2d/",
        "linear/",
        "control/candle max_pool2d is caught",
    ];
    let parameters = lenet5::PARAMETERS
        .iter()
        .map(|spec| format!("lenet5/fused/{}/", spec.name));
    for prefix in losses.chain(ops.map(str::to_string)).chain(parameters) {
        assert!(
            names.iter().any(|name| name.starts_with(&prefix)),
            "{prefix}"
        );
    }
}

#[test]
fn bad_usage_exits_with_2_and_names_the_flag() {
    for (arguments, named) in [
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["--device", "gpu"], "expected auto, cpu, cuda or cuda:N"),
        (&["--golden"], "--golden"),
        (&["--filter", "no such case"], "--filter no such case"),
    ] {
        let output = verify_grads(arguments);
        assert_eq!(code(&output), Some(2), "{arguments:?}");
        assert!(
            stderr(&output).contains(named),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(stdout(&output).is_empty());
    }
}

#[test]
fn help_names_every_flag() {
    let output = verify_grads(&["--help"]);
    assert_eq!(code(&output), Some(0));
    for flag in ["--golden", "--filter", "--device", "--json"] {
        assert!(stdout(&output).contains(flag), "{flag}");
    }
}

#[test]
fn a_closed_standard_output_is_not_a_panic() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_verify-grads"))
        .args(["--filter", "nll"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!((code(&output), stderr(&output).as_str()), (Some(0), ""));
}
