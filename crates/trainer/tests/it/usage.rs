//! Arguments: what is refused with exit code 2, and that help is there.

use crate::support::{expect, temporary};

const COMMANDS: [&str; 6] = [
    "train",
    "eval",
    "predict",
    "compare",
    "verify-training",
    "data",
];

#[test]
fn every_command_has_help() {
    let folder = temporary();
    let all = expect(0, folder.path(), &["--help"]).stdout;
    for command in COMMANDS {
        assert!(all.contains(command), "{all}");
        let help = expect(0, folder.path(), &[command, "--help"]).stdout;
        assert!(help.contains("--json"), "{help}");
    }
}

#[test]
fn wrong_arguments_are_named_and_exit_with_2() {
    let folder = temporary();
    let wrong: [&[&str]; 17] = [
        &[],
        &["fly"],
        &["train", "--speed"],
        &["train", "extra"],
        &["train", "--epochs", "0"],
        &["train", "--epochs", "-1"],
        &["train", "--batch-size", "0"],
        &["train", "--lr", "nan"],
        &["train", "--lr", "0"],
        &["train", "--loss", "hinge"],
        &["train", "--threads", "0"],
        &["train", "--device", "gpu"],
        &["train", "--min-accuracy", "1.5"],
        &["train", "--seed", "-3"],
        &["train", "--unverified"],
        &["train", "--resume", "a", "--run-dir", "b"],
        &["verify-training"],
    ];
    for arguments in wrong {
        let finished = expect(2, folder.path(), arguments);
        assert!(finished.stdout.is_empty(), "{arguments:?}");
        if let [_, flag, ..] = arguments {
            assert!(finished.stderr.contains(flag), "{}", finished.stderr);
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 0);
}
