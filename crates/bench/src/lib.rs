//! What the benchmarks share: data that a Python script can make as well, and a note of the machine.
//!
//! A benchmark's group is the operation, its function the implementation and its parameter the shape. The scripts in
//! `python/` print the same three names, so that `cargo xtask bench` can set all of them side by side in one table.

pub mod lenet5;

use candle_core::{Device, Result, Tensor};
use std::path::Path;

/// Fixed pseudo-random values in [-2, 2), in f32: `((i * 2654435761) mod 1000) / 250 - 2` for the i-th element.
pub fn values(shape: &[usize]) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    let value = |i: usize| ((i as u64).wrapping_mul(2_654_435_761) % 1000) as f32 / 250.0 - 2.0;
    Tensor::from_vec(
        (0..count).map(value).collect::<Vec<f32>>(),
        shape,
        &Device::Cpu,
    )
}

/// Fixed class indices: `(i * 7919) mod classes` for row i.
pub fn targets(rows: usize, classes: usize) -> Result<Tensor> {
    let target = |i: usize| ((i * 7919) % classes) as u32;
    Tensor::from_vec(
        (0..rows).map(target).collect::<Vec<u32>>(),
        rows,
        &Device::Cpu,
    )
}

/// The shape as it stands in a table: `8192x1000`.
pub fn label(shape: &[usize]) -> String {
    shape
        .iter()
        .map(usize::to_string)
        .collect::<Vec<_>>()
        .join("x")
}

/// Writes what the numbers depend on into `environment.json` in `$CRITERION_HOME`, where `cargo xtask bench` reads it.
///
/// Without that variable (a plain `cargo bench`) there is nobody to read it, and nothing is written.
pub fn record_environment() -> std::io::Result<()> {
    let Some(home) = std::env::var_os("CRITERION_HOME") else {
        return Ok(());
    };
    let environment = serde_json::json!({
        "instruction_set": candle_simd::Isa::active().name(),
        "threads": std::env::var("RAYON_NUM_THREADS").unwrap_or_else(|_| "all".into()),
        "compile_time_features": compile_time_features(),
    });
    std::fs::create_dir_all(&home)?;
    std::fs::write(
        Path::new(&home).join("environment.json"),
        environment.to_string(),
    )
}

/// Candle chooses its own vector code when it is compiled, so the flags matter for its side of the table.
fn compile_time_features() -> &'static str {
    if cfg!(target_feature = "avx512f") {
        "avx512f"
    } else if cfg!(target_feature = "avx2") {
        "avx2"
    } else {
        "baseline (no target-cpu flag)"
    }
}
