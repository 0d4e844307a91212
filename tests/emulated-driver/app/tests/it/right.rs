//! Right programs run, in every order of blocks and threads, and say what they are.

use crate::program::{errors, program, succeeds};
use emulate::Checks;

const ORDERS: [&str; 4] = ["forward", "reverse", "shuffle:1", "shuffle:2"];

fn in_every_order(what: &str) {
    for order in ORDERS {
        succeeds(program(&[what], Checks::On).env("CUDA_EMU_ORDER", order));
    }
    succeeds(&mut program(&[what], Checks::Off));
}

#[test]
fn candle_s_own_kernels_agree_with_the_cpu_and_are_free_of_races() {
    in_every_order("ops");
}

#[test]
fn sample_kernels_agree_with_plain_rust() {
    in_every_order("sample");
}

#[test]
fn what_is_shared_may_be_of_a_type_with_constructors() {
    in_every_order("shared-objects");
}

#[test]
fn a_loss_of_one_s_own_agrees_with_the_cpu() {
    in_every_order("own-loss");
}

#[test]
fn ten_training_steps_equal_the_cpu() {
    in_every_order("train");
}

#[test]
fn nobody_can_take_it_for_a_gpu() {
    let mut command = program(&["control", "right"], Checks::On);
    let output = command.output().unwrap();
    assert!(
        errors(&output).contains("nothing here is evidence of a GPU"),
        "{output:?}"
    );
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("no evidence of a real GPU"),
        "{output:?}"
    );
}

#[test]
fn the_log_names_every_call() {
    let mut command = program(&["control", "right"], Checks::On);
    let output = command.env("CUDA_EMU_LOG", "-").output().unwrap();
    let log = errors(&output);
    for call in [
        "cuInit(0)",
        "cuMemAllocAsync(256)",
        "cuLaunchKernel(right, grid 1 1 1, block 64 1 1, shared 0)",
        "cuMemFreeAsync",
    ] {
        assert!(log.contains(call), "{call} is missing in\n{log}");
    }
}

#[test]
fn a_variable_that_says_nonsense_is_refused() {
    for (name, value) in [
        ("CUDA_EMU_ORDER", "sideways"),
        ("CUDA_EMU_ORDER", "shuffle:x"),
        ("CUDA_EMU_FAULTS", "ignore"),
    ] {
        let mut command = program(&["control", "right"], Checks::On);
        let output = command.env(name, value).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(
            errors(&output).contains(name) && errors(&output).contains(value),
            "{output:?}"
        );
    }
}
