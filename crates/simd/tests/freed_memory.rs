//! That freed memory stays with the process: in a process of its own, since the setting is the whole process's.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use candle_simd::heap::keep_freed_memory;

/// Three of these fit the 64 MiB that glibc's heaps of threads, such as those of tests, hold at most.
const BYTES: usize = 12 << 20;

/// Page faults of this process so far.
fn faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has /proc");
    // The name of the program is in parentheses and may hold blanks; minor faults are the eighth number behind it.
    let (_, numbers) = stat.rsplit_once(')').expect("a name in parentheses");
    let faults = numbers.split_whitespace().nth(7).expect("eight numbers");
    faults.parse().expect("a number of faults")
}

/// Page faults of a step that writes three buffers and frees them, as Candle's `backward` does for one edge of the graph.
fn faults_of_a_step() -> u64 {
    let before = faults();
    let buffers = [1u8, 2, 3].map(|byte| vec![byte; BYTES]);
    drop(std::hint::black_box(buffers));
    faults() - before
}

#[test]
fn memory_that_is_freed_and_allocated_again_faults_once_where_it_is_kept() {
    let fresh = faults_of_a_step();
    assert!(fresh > 1000, "fresh buffers take {fresh} faults");
    faults_of_a_step();
    assert!(
        faults_of_a_step() > fresh / 2,
        "buffers of this size are given back where nothing is kept"
    );
    assert!(keep_freed_memory(4 * BYTES));
    faults_of_a_step();
    let kept = faults_of_a_step();
    assert!(kept < 10, "{kept} faults though memory is kept");
}
