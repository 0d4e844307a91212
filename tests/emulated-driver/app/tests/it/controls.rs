//! Wrong programs are caught, with the kernel, the line, the thread and the block named.

use crate::program::{emulator, errors, kernels, program};
use emulate::{Checks, FAULT_STATUS, Kernels};

/// The line of `controls.cu` that a comment marks as the one to be named.
fn marked_line(name: &str) -> usize {
    let text = std::fs::read_to_string(kernels("controls.cu")).unwrap();
    let mark = format!("// caught: {name}");
    let found = text.lines().position(|line| line.ends_with(&mark));
    found.unwrap_or_else(|| panic!("no line is marked `{mark}`")) + 1
}

/// Runs a control and expects the driver to end it with all of `expected` in its message, in every order.
fn is_caught(name: &str, expected: &[&str]) {
    for order in ["forward", "reverse", "shuffle:1", "shuffle:2"] {
        let mut command = program(&["control", name], Checks::On);
        let output = command.env("CUDA_EMU_ORDER", order).output().unwrap();
        let message = errors(&output);
        assert_eq!(
            output.status.code(),
            Some(FAULT_STATUS),
            "{name}, {order}: not caught: {message}"
        );
        for part in expected {
            assert!(
                message.contains(part),
                "{name}, {order}: `{part}` is not in\n{message}"
            );
        }
    }
}

/// As [`is_caught`], and the message names the kernel, the marked line, and a thread of a block.
fn is_caught_at_its_line(name: &str, expected: &str) {
    let line = marked_line(name);
    is_caught(
        name,
        &[
            expected,
            &format!("in kernel {name}, thread ("),
            ") of block (",
        ],
    );
    let mut command = program(&["control", name], Checks::On);
    let message = errors(&command.output().unwrap());
    let named = [format!("controls.cu:{line}"), format!("line {line}")];
    assert!(
        named.iter().any(|place| message.contains(place)),
        "line {line} is not named in\n{message}"
    );
}

#[test]
fn the_right_kernel_is_not_accused() {
    for order in ["forward", "reverse", "shuffle:1", "shuffle:2"] {
        crate::program::succeeds(
            program(&["control", "right"], Checks::On).env("CUDA_EMU_ORDER", order),
        );
    }
}

#[test]
fn races_are_caught_whatever_the_order() {
    is_caught_at_its_line("missing_barrier", "data race on shared memory");
    is_caught_at_its_line(
        "missing_barrier_before_a_call",
        "data race on shared memory",
    );
    is_caught_at_its_line("shuffle_is_no_barrier", "data race on shared memory");
    is_caught_at_its_line("two_threads_write_one_place", "data race on device memory");
    is_caught_at_its_line("two_blocks_write_one_place", "data race on device memory");
    is_caught_at_its_line("atomic_against_plain", "data race on device memory");
}

#[test]
fn stray_accesses_are_caught() {
    is_caught_at_its_line(
        "read_past_the_end",
        "0 bytes past the end of an allocation of 256 bytes",
    );
    is_caught_at_its_line("hinted_read_past_the_end", "stray read of 4 bytes");
    is_caught_at_its_line("write_past_the_end", "stray write of 4 bytes");
    is_caught_at_its_line(
        "index_past_a_shared_array",
        "index 64 is out of the array's bounds",
    );
    is_caught_at_its_line(
        "pointer_past_a_shared_array",
        "0 bytes past the end of a shared variable of 256 bytes",
    );
    is_caught_at_its_line(
        "past_dynamic_shared_memory",
        "byte 256 of dynamic shared memory",
    );
    is_caught_at_its_line("argument_past_the_end", "stray read of 2 bytes");
    is_caught_at_its_line("result_past_the_end", "stray write of 2 bytes");
    is_caught_at_its_line("atomic_operand_past_the_end", "stray read of 2 bytes");
    is_caught_at_its_line("misaligned_vector", "misaligned access");
}

#[test]
fn wrong_barriers_are_caught() {
    is_caught(
        "barrier_after_return",
        &[
            "in kernel barrier_after_return",
            "__syncthreads",
            &line("barrier_after_return"),
        ],
    );
    is_caught(
        "divergent_barrier",
        &[
            "in kernel divergent_barrier",
            "divergent barrier",
            &line("divergent_barrier"),
        ],
    );
    is_caught(
        "barrier_in_half_of_the_block",
        &[
            "in kernel barrier_in_half_of_the_block",
            &line("barrier_in_half_of_the_block"),
        ],
    );
    is_caught(
        "barrier_against_warp_operation",
        &[
            "deadlock",
            "__shfl_sync with mask 0xffffffff",
            &line("barrier_against_warp_operation"),
        ],
    );
}

fn line(name: &str) -> String {
    format!("line {}", marked_line(name))
}

#[test]
fn wrong_masks_are_caught() {
    is_caught(
        "mask_names_a_returned_lane",
        &["in kernel mask_names_a_returned_lane", "returned"],
    );
    is_caught_at_its_line("mask_without_the_caller", "is not in its own mask 0xffff");
    is_caught_at_its_line(
        "source_lane_outside_the_mask",
        "which mask 0xffff does not name",
    );
    is_caught_at_its_line(
        "full_mask_in_part_of_a_warp",
        "names lanes that do not exist",
    );
    is_caught("different_masks", &["in kernel different_masks", "mask"]);
}

#[test]
fn undefined_arithmetic_is_caught() {
    is_caught_at_its_line("division_by_zero", "division by zero");
    is_caught_at_its_line("overflowing_offset", "signed overflow of a multiplication");
    is_caught_at_its_line("shift_too_far", "shift by more");
    is_caught_at_its_line("trap", "__trap() was reached");
}

#[test]
fn wrong_launches_are_caught() {
    is_caught("other_parameters", &["the PTX take 8 8 4 bytes", "8 8 8"]);
    is_caught(
        "host_pointer",
        &[
            "launch of right: argument 0, a pointer",
            "in no live allocation",
        ],
    );
    is_caught(
        "freed_pointer",
        &[
            "launch of right: argument 0, a pointer",
            "in no live allocation",
        ],
    );
    is_caught(
        "number_for_a_pointer",
        &["launch of right: argument 0, a pointer, is 0x40"],
    );
    is_caught("too_many_threads", &["block (2048,1,1)", "1024"]);
    is_caught(
        "too_much_shared_memory",
        &["60000 bytes of dynamic shared memory; at most 49152"],
    );
    is_caught("empty_grid", &["grid (0,1,1)"]);
}

#[test]
fn leaks_are_caught_unless_allowed() {
    is_caught("leak", &["leak: 1 allocations were never freed: 400 bytes"]);
    crate::program::succeeds(
        program(&["control", "leak"], Checks::On).env("CUDA_EMU_LEAKS", "allow"),
    );
}

#[test]
fn what_was_never_written_is_nan() {
    for name in [
        "output_not_written",
        "shared_memory_not_written",
        "shared_object_not_written",
    ] {
        let output = program(&["control", name], Checks::On).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(errors(&output).contains("element 5 is NaN"), "{output:?}");
    }
}

#[test]
fn a_fault_can_be_returned_as_an_error_that_says_the_same() {
    let mut command = program(&["control", "missing_barrier"], Checks::On);
    let output = command.env("CUDA_EMU_FAULTS", "return").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = errors(&output)
        .lines()
        .find(|line| line.starts_with("error: "))
        .unwrap_or_default()
        .to_owned();
    assert!(
        line.contains("data race on shared memory") && line.contains("CUDA_ERROR_LAUNCH_FAILED"),
        "{line}"
    );
}

#[test]
fn leaving_out_any_barrier_of_the_sample_kernels_is_caught() {
    let sample = Kernels::of(kernels("sample.cu"));
    let barriers = emulator()
        .barriers(&sample)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(barriers.len(), 5);
    for index in 0..barriers.len() {
        let mutant = emulator()
            .build_library(&sample.clone().without_barrier(index), Checks::On)
            .unwrap_or_else(|error| panic!("{error}"));
        for order in ["forward", "reverse", "shuffle:1"] {
            let mut command = program(&["sample"], Checks::On);
            let output = command
                .env("CUDA_EMU_KERNELS", &mutant)
                .env("CUDA_EMU_ORDER", order)
                .output()
                .unwrap();
            let message = errors(&output);
            assert_eq!(
                output.status.code(),
                Some(FAULT_STATUS),
                "barrier {index}, {order}: not caught: {message}"
            );
            assert!(
                message.contains("data race on shared memory") && message.contains("sample.cu:"),
                "{message}"
            );
        }
    }
}
