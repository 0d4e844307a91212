//! Times `conv2d` on common shapes beside Candle's own, and prints a table in milliseconds.
//!
//! ```text
//! cargo run --release -p candle-vision-ops --example conv_shapes -- [threads]
//! ```
//!
//! Times are the fastest of several runs, since other processes only add to them.

// A program that prints.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use candle_core::{Device, Result, Tensor, Var};
use candle_simd::Isa;
use candle_vision_ops::{Conv2dOptions, conv2d};

const BATCH: usize = 32;
const SIZE: usize = 32;

/// Fastest forward, and forward and backward, in milliseconds.
fn time(
    t: &[Tensor; 2],
    runs: usize,
    op: impl Fn(&[Tensor; 2]) -> Result<Tensor>,
) -> Result<(f64, f64)> {
    let (mut forward, mut both) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..runs {
        let start = Instant::now();
        let y = op(t)?;
        forward = forward.min(start.elapsed().as_secs_f64() * 1e3);
        y.backward()?;
        both = both.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok((forward, both))
}

fn table() -> Result<()> {
    println!(
        "{:?}, {} threads, batch {BATCH}, {SIZE} x {SIZE}, ms",
        Isa::active(),
        rayon::current_num_threads()
    );
    println!(
        "{:20}{:>10}{:>10}{:>10}{:>10}",
        "conv2d", "forward", "backward", "candle", "candle"
    );
    for (kernel, channels) in [
        (3, [3, 16]),
        (3, [16, 32]),
        (3, [3, 64]),
        (3, [64, 64]),
        (3, [64, 3]),
        (5, [3, 16]),
        (5, [16, 32]),
        (5, [64, 64]),
    ] {
        let [inputs, outputs] = channels;
        let var = |shape: &[usize]| -> Result<Tensor> {
            Ok(Var::randn(0f32, 1.0, shape, &Device::Cpu)?
                .as_tensor()
                .clone())
        };
        let t = [
            var(&[BATCH, inputs, SIZE, SIZE])?,
            var(&[outputs, inputs, kernel, kernel])?,
        ];
        let padding = kernel / 2;
        let options = Conv2dOptions {
            padding: (padding, padding),
            ..Default::default()
        };
        let ours = time(&t, 20, |t| conv2d(&t[0], &t[1], None, options))?;
        let candle = time(&t, 2, |t| t[0].conv2d(&t[1], padding, 1, 1, 1))?;
        println!(
            "{:20}{:>10.2}{:>10.2}{:>10.2}{:>10.2}",
            format!("{inputs}-{outputs} {kernel}x{kernel}"),
            ours.0,
            ours.1 - ours.0,
            candle.0,
            candle.1 - candle.0
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    let threads = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(2);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(candle_core::Error::wrap)?.install(table)
}
