//! Hygiene of the tree as ordinary tests.

use crate::workspace::{files, root};
use std::path::Path;

fn read(file: &Path) -> String {
    std::fs::read_to_string(root().join(file))
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn rust_files() -> Vec<std::path::PathBuf> {
    files()
        .into_iter()
        .filter(|file| file.extension().is_some_and(|e| e == "rs"))
        .collect()
}

#[test]
fn each_rust_file_says_what_it_is_for() {
    // The crate documentation of a published crate may be its README.
    let says = |text: &str| {
        ["//!", "#![doc = include_str!"]
            .iter()
            .any(|start| text.starts_with(start))
    };
    let bare: Vec<_> = rust_files()
        .into_iter()
        .filter(|file| !says(&read(file)))
        .collect();
    assert!(bare.is_empty(), "without a `//!` header: {bare:?}");
}

#[test]
fn no_rust_file_reaches_a_thousand_lines() {
    let long: Vec<_> = rust_files()
        .into_iter()
        .filter(|file| read(file).lines().count() >= 1000)
        .collect();
    assert!(long.is_empty(), "split by subject: {long:?}");
}

#[test]
fn no_test_is_switched_off() {
    // Spelled in two parts so that this file does not find itself.
    let mark = concat!("#[", "ignore");
    let found: Vec<_> = rust_files()
        .into_iter()
        .filter(|file| read(file).contains(mark))
        .collect();
    assert!(found.is_empty(), "switched off in {found:?}");
}

#[test]
fn unsafe_code_stays_in_simd_and_kernel_files() {
    let allowed = |file: &Path| {
        let path = file.to_string_lossy().replace('\\', "/");
        // Counting allocations takes a global allocator, and the driver's stubs are tested on a declaration in a string.
        const OTHERS: [&str; 2] = [
            "crates/losses/tests/it/memory.rs",
            "xtask/src/cuda_stubs.rs",
        ];
        path.starts_with("crates/simd/")
            || path.contains("kernel")
            || OTHERS.contains(&path.as_str())
    };
    let marks = [
        concat!("unsafe", " {"),
        concat!("unsafe", " fn"),
        concat!("unsafe", " impl"),
    ];
    let found: Vec<_> = rust_files()
        .into_iter()
        .filter(|file| !allowed(file))
        .filter(|file| {
            let text = read(file);
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            code.into_iter()
                .any(|line| marks.iter().any(|mark| line.contains(mark)))
        })
        .collect();
    assert!(
        found.is_empty(),
        "`unsafe` outside simd and kernel files: {found:?}"
    );
}

#[test]
fn published_crates_carry_both_licences() {
    for folder in ["simd", "losses", "gradcheck", "vision-ops"] {
        for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
            let path = root().join("crates").join(folder).join(licence);
            let ours =
                std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(
                ours,
                std::fs::read(root().join(licence)).unwrap(),
                "{} differs",
                path.display()
            );
        }
    }
}
