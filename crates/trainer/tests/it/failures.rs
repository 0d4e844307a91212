//! What goes wrong: one clear message, the right exit code, and never a panic.

use std::fs::{self, File};
use std::process::Command;

use crate::support::{expect, finish, temporary, trainer};

const TINY: [&str; 5] = ["train", "--limit-batches", "2", "--epochs", "1"];

#[test]
fn a_diverging_run_exits_with_4() {
    let folder = temporary();
    for loss in ["fused", "composed", "candle"] {
        let arguments = [
            "train",
            "--epochs",
            "1",
            "--lr",
            "1e6",
            "--run-dir",
            loss,
            "--loss",
            loss,
        ];
        let finished = expect(4, folder.path(), &arguments);
        assert!(finished.stderr.contains("diverged"), "{}", finished.stderr);
        assert!(finished.stderr.contains("--lr"), "{}", finished.stderr);
        assert!(
            !folder
                .path()
                .join(loss)
                .join("weights.safetensors")
                .exists()
        );
    }
}

#[test]
fn an_accuracy_below_the_least_exits_with_5_after_the_output() {
    let folder = temporary();
    let arguments = [&TINY[..], &["--min-accuracy", "0.99", "--json"]].concat();
    let finished = expect(5, folder.path(), &arguments);
    assert!(
        finished.stderr.contains("--min-accuracy 0.99"),
        "{}",
        finished.stderr
    );
    assert!(finished.stdout.contains("final_weights"));
}

#[test]
fn a_run_directory_that_cannot_be_written_is_named() {
    let folder = temporary();
    fs::write(folder.path().join("file"), b"in the way").expect("writable");
    for path in [
        "file",
        "file/run",
        "/proc/no/run",
        "/dev/full",
        "/dev/full/run",
    ] {
        let finished = expect(
            1,
            folder.path(),
            &[&TINY[..], &["--run-dir", path]].concat(),
        );
        assert!(finished.stderr.contains(path), "{}", finished.stderr);
        assert!(!finished.stdout.contains("epoch:"), "{}", finished.stdout);
    }
}

/// A limit on the size of files stands in for a full disk: the same calls fail, with another error number.
#[test]
fn a_file_that_cannot_be_written_whole_is_an_error_and_leaves_no_part() {
    let folder = temporary();
    let script = format!(
        "trap '' XFSZ; ulimit -f 100; exec '{}' {} --run-dir run",
        env!("CARGO_BIN_EXE_trainer"),
        TINY.join(" ")
    );
    let output = Command::new("sh")
        .current_dir(folder.path())
        .env("RUST_BACKTRACE", "1")
        .args(["-c", &script])
        .output()
        .expect("sh runs");
    let finished = finish(output);
    assert_eq!(finished.code, 1, "{}", finished.stderr);
    assert!(
        finished
            .stderr
            .contains("cannot write run/checkpoint.safetensors"),
        "{}",
        finished.stderr
    );
    let left: Vec<_> = fs::read_dir(folder.path().join("run"))
        .expect("the run directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(left, ["config.json"]);
}

#[test]
fn a_full_standard_output_is_an_error_and_a_full_standard_error_no_panic() {
    let folder = temporary();
    let full = || File::create("/dev/full").expect("/dev/full");
    let output = trainer(folder.path(), &["data", "--json"])
        .stdout(full())
        .output();
    let finished = finish(output.expect("the binary starts"));
    assert_eq!(finished.code, 1);
    assert!(
        finished.stderr.contains("standard output"),
        "{}",
        finished.stderr
    );
    let output = trainer(folder.path(), &["eval", "nowhere"])
        .stderr(full())
        .output();
    assert_eq!(finish(output.expect("the binary starts")).code, 3);
}

#[test]
fn data_that_is_not_there_or_not_right_exits_with_3() {
    let folder = temporary();
    fs::create_dir(folder.path().join("data")).expect("writable");
    for command in ["train", "data", "compare"] {
        let finished = expect(3, folder.path(), &[command, "--data", "nowhere"]);
        assert!(finished.stderr.contains("nowhere"), "{}", finished.stderr);
        let finished = expect(3, folder.path(), &[command, "--data", "data"]);
        assert!(
            finished.stderr.contains("train-images"),
            "{}",
            finished.stderr
        );
    }
    assert!(!folder.path().join("runs").exists(), "no run was begun");
}

#[test]
fn what_is_no_run_exits_with_3() {
    let folder = temporary();
    fs::create_dir(folder.path().join("empty")).expect("writable");
    for run in ["nowhere", "empty"] {
        for arguments in [
            ["eval", run].as_slice(),
            &["predict", run, "a.png"],
            &["train", "--resume", run],
        ] {
            let finished = expect(3, folder.path(), arguments);
            assert!(finished.stderr.contains(run), "{}", finished.stderr);
        }
    }
    let finished = expect(3, folder.path(), &["train", "--resume"]);
    assert!(
        finished.stderr.contains("no run to resume"),
        "{}",
        finished.stderr
    );
    fs::write(
        folder.path().join("empty/weights.safetensors"),
        b"not weights",
    )
    .expect("writable");
    let finished = expect(3, folder.path(), &["eval", "empty"]);
    assert!(
        finished.stderr.contains("not a safetensors file"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_gpu_that_is_not_there_is_an_error() {
    let folder = temporary();
    let finished = expect(
        1,
        folder.path(),
        &[&TINY[..], &["--device", "cuda:63"]].concat(),
    );
    assert!(
        finished.stderr.contains("--device cuda:63"),
        "{}",
        finished.stderr
    );
}
