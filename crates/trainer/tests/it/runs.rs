//! Training runs: their output, their files, and the same bits again.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{expect, finish, json, read, temporary, trainer};

const QUICK: [&str; 5] = ["train", "--limit-batches", "12", "--epochs", "2"];

fn quick<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&QUICK[..], more].concat()
}

#[test]
fn a_run_prints_its_epochs_and_leaves_its_files() {
    let folder = temporary();
    let finished = expect(0, folder.path(), &quick(&["--run-dir", "run"]));
    let lines: Vec<&str> = finished.stdout.lines().collect();
    let at = lines
        .iter()
        .position(|line| line.starts_with("epoch: 1 loss: "))
        .expect("the epoch's line");
    let number = |text: &str| text.parse::<f64>().expect("a number");
    let loss = number(&lines[at]["epoch: 1 loss: ".len()..]);
    assert!(loss > 0.5 && loss < 2.4, "{loss}");
    let words: Vec<&str> = lines[at + 1].split(' ').collect();
    assert_eq!(words[..2], ["train", "accuracy:"]);
    assert_eq!(words[3..5], ["test", "accuracy:"]);
    assert!(number(words[2]) > 0.1 && number(words[5]) > 0.1);
    assert!(lines.iter().any(|line| line.starts_with("epoch: 2 loss: ")));

    let run = folder.path().join("run");
    let text = String::from_utf8(read(run.join("metrics.jsonl"))).expect("UTF-8");
    assert_eq!(text.lines().count(), 2);
    let line: serde_json::Value =
        serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert!((line["loss"].as_f64().expect("loss") - loss).abs() < 1e-6);
    let config: serde_json::Value =
        serde_json::from_slice(&read(run.join("config.json"))).expect("JSON");
    for key in [
        "epochs",
        "batch_size",
        "lr",
        "loss",
        "seed",
        "device",
        "threads",
        "isa",
        "data",
        "versions",
    ] {
        assert!(!config[key].is_null(), "{key}");
    }
    assert!(run.join("weights.safetensors").exists());

    // The run again must not touch what is there.
    let before = read(run.join("weights.safetensors"));
    let again = expect(
        1,
        folder.path(),
        &quick(&["--run-dir", "run", "--seed", "9"]),
    );
    assert!(again.stderr.contains("not empty"), "{}", again.stderr);
    assert!(read(run.join("weights.safetensors")) == before);

    let evaluated = json(&expect(0, folder.path(), &["eval", "run", "--json"]));
    assert_eq!(evaluated["samples"], 10_000);
    assert_eq!(
        evaluated["accuracy"],
        serde_json::from_str::<serde_json::Value>(text.lines().last().expect("a line"))
            .expect("JSON")["test_accuracy"]
    );
    let table = expect(0, folder.path(), &["eval", "run"]).stdout;
    assert!(table.contains("Ankle boot"), "{table}");
}

#[test]
fn json_is_one_object_with_the_documented_keys() {
    let folder = temporary();
    let finished = expect(
        0,
        folder.path(),
        &["train", "--limit-batches", "2", "--epochs", "1", "--json"],
    );
    let object = json(&finished);
    let epoch = &object["epochs"][0];
    assert_eq!(epoch["epoch"], 1);
    for key in [
        "loss",
        "train_accuracy",
        "test_accuracy",
        "train_seconds",
        "eval_seconds",
    ] {
        assert!(epoch[key].is_f64(), "{key}");
    }
    assert_eq!(object["config"]["epochs"], 1);
    assert!(
        finished.stderr.contains("epoch: 1 loss: "),
        "{}",
        finished.stderr
    );
    let weights = object["final_weights"].as_str().expect("a path");
    assert!(folder.path().join(weights).exists());
    assert!(
        object["run_dir"]
            .as_str()
            .expect("a path")
            .starts_with("runs/")
    );
}

#[test]
fn a_resumed_run_and_any_number_of_threads_give_the_same_bits() {
    let folder = temporary();
    let weights = |run: &str| read(folder.path().join(run).join("weights.safetensors"));
    expect(
        0,
        folder.path(),
        &quick(&["--run-dir", "one", "--threads", "1"]),
    );
    expect(
        0,
        folder.path(),
        &quick(&["--run-dir", "two", "--threads", "2"]),
    );
    assert!(weights("one") == weights("two"), "threads");
    let first = [
        "train",
        "--limit-batches",
        "12",
        "--epochs",
        "1",
        "--run-dir",
        "runs/half",
    ];
    expect(0, folder.path(), &first);
    let resumed = expect(
        0,
        folder.path(),
        &["train", "--resume", "--epochs", "2", "--json"],
    );
    assert_eq!(json(&resumed)["epochs"].as_array().map(Vec::len), Some(2));
    assert!(weights("one") == weights("runs/half"), "resumed");
    expect(
        0,
        folder.path(),
        &quick(&["--run-dir", "other", "--seed", "1"]),
    );
    assert!(weights("one") != weights("other"), "another seed");

    for (flag, value) in [
        ("--lr", "0.5"),
        ("--seed", "4"),
        ("--loss", "candle"),
        ("--epochs", "1"),
    ] {
        let refused = expect(
            2,
            folder.path(),
            &["train", "--resume", "runs/half", flag, value],
        );
        assert!(refused.stderr.contains(flag), "{}", refused.stderr);
    }
}

#[test]
fn an_interrupted_run_saves_its_state_and_goes_on_to_the_same_bits() {
    let folder = temporary();
    let arguments = [
        "train",
        "--limit-batches",
        "40",
        "--epochs",
        "2",
        "--run-dir",
    ];
    expect(0, folder.path(), &[&arguments[..], &["straight"]].concat());

    let mut child = trainer(folder.path(), &[&arguments[..], &["stopped"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    assert!(line.starts_with("run directory: "), "{line}");
    let id = child.id().to_string();
    let killed = Command::new("kill")
        .args(["-INT", &id])
        .status()
        .expect("kill runs");
    assert!(killed.success());
    let finished = finish(child.wait_with_output().expect("it ends"));
    assert_eq!(finished.code, 130, "{}", finished.stderr);
    assert!(
        finished.stderr.contains("--resume stopped"),
        "{}",
        finished.stderr
    );
    assert!(!folder.path().join("stopped/weights.safetensors").exists());

    expect(0, folder.path(), &["train", "--resume", "stopped"]);
    let weights = |run: &str| read(folder.path().join(run).join("weights.safetensors"));
    assert!(weights("straight") == weights("stopped"));
}

#[test]
fn compare_trains_once_per_loss_and_they_agree() {
    let folder = temporary();
    let arguments = ["compare", "--limit-batches", "12", "--epochs", "1"];
    let finished = expect(0, folder.path(), &[&arguments[..], &["--json"]].concat());
    let object = json(&finished);
    let losses: Vec<_> = object["runs"]
        .as_array()
        .expect("runs")
        .iter()
        .map(|run| run["config"]["loss"].as_str().expect("a name").to_string())
        .collect();
    assert_eq!(losses, ["fused", "composed", "candle"]);
    assert!(
        object["first_epoch_loss_difference"]
            .as_f64()
            .expect("a number")
            < 1e-2
    );
}

fn save_image(path: &Path) {
    let mut image = image::GrayImage::new(28, 28);
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        let inside = (8..20).contains(&x) && (3..25).contains(&y);
        *pixel = image::Luma([if inside { 200 } else { 0 }]);
    }
    image.save(path).expect("writable");
}

#[test]
fn predict_names_three_classes_of_each_image() {
    let folder = temporary();
    expect(
        0,
        folder.path(),
        &[
            "train",
            "--limit-batches",
            "2",
            "--epochs",
            "1",
            "--run-dir",
            "run",
        ],
    );
    save_image(&folder.path().join("a.png"));
    save_image(&folder.path().join("b.jpg"));
    let finished = expect(
        0,
        folder.path(),
        &["predict", "run", "a.png", "b.jpg", "--json"],
    );
    let object = json(&finished);
    for (index, name) in ["a.png", "b.jpg"].iter().enumerate() {
        let prediction = &object["predictions"][index];
        assert_eq!(prediction["image"], *name);
        let top = prediction["top"].as_array().expect("classes");
        let probabilities: Vec<f64> = top
            .iter()
            .map(|class| class["probability"].as_f64().expect("a number"))
            .collect();
        assert_eq!(probabilities.len(), 3);
        assert!(probabilities.is_sorted_by(|a, b| a >= b) && probabilities[0] < 1.0);
    }
    let inverted = expect(0, folder.path(), &["predict", "run", "a.png", "--invert"]);
    assert!(
        inverted.stderr.contains("without --invert"),
        "{}",
        inverted.stderr
    );
    let missing = expect(3, folder.path(), &["predict", "run", "c.png"]);
    assert!(missing.stderr.contains("c.png"), "{}", missing.stderr);
}
