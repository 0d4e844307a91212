//! Finds or fetches the data set, says what lies where, and times a load.
//!
//! `cargo run --release -p fashion-mnist --example inspect [DIRECTORY]`

#![allow(clippy::print_stdout, clippy::print_stderr)]

use fashion_mnist::{DataError, SearchOptions, find_or_fetch};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    match inspect() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn inspect() -> Result<(), DataError> {
    let start = Instant::now();
    let dir = std::env::args_os().nth(1).map(Into::into);
    let location = find_or_fetch(&SearchOptions::from_environment().with_explicit(dir))?;
    println!(
        "{} ({}), found or fetched in {:?}",
        location.dir.display(),
        location.source,
        start.elapsed()
    );
    for file in location.describe()? {
        println!(
            "{} {} bytes on disk, {} decompressed, sha256 {} {}",
            file.path.display(),
            file.bytes_on_disk,
            file.bytes,
            file.sha256,
            if file.genuine { "genuine" } else { "OTHER" }
        );
    }
    for _ in 0..5 {
        let start = Instant::now();
        let data = location.load()?;
        println!(
            "loaded, verified and resized {} + {} images in {:?}",
            data.train.len(),
            data.test.len(),
            start.elapsed()
        );
    }
    Ok(())
}
