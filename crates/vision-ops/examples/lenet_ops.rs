//! Times the ops of a LeNet-5 step, forward and backward, and prints a table in nanoseconds an image.
//!
//! ```text
//! cargo run --release -p candle-vision-ops --example lenet_ops -- [threads]
//! ```
//!
//! Times are the fastest tenth, since other processes only add to them; `CANDLE_SIMD=avx2` or `portable` measures a narrower instruction set.

// A program that prints.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_simd::Isa;
use candle_vision_ops::{Conv2dOptions, conv2d_relu_max_pool2d, linear};

const BATCH: usize = 128;
const REPEATS: usize = 400;

/// Name, op, shapes of `x` and `weight`, and whether `x` tracks gradients.
type Row<'a> = (&'a str, Op, &'a [usize], &'a [usize], bool);

type Op = fn(&[Tensor]) -> Result<Tensor>;

fn conv(t: &[Tensor]) -> Result<Tensor> {
    conv2d_relu_max_pool2d(
        &t[0],
        &t[1],
        &t[2],
        Conv2dOptions::default(),
        (2, 2),
        (2, 2),
    )
}

fn dense(t: &[Tensor]) -> Result<Tensor> {
    linear(&t[0], &t[1], Some(&t[2]), false)
}

fn dense_relu(t: &[Tensor]) -> Result<Tensor> {
    linear(&t[0], &t[1], Some(&t[2]), true)
}

/// Times of forward, and of forward and backward, in nanoseconds an image.
fn time(op: Op, x: &[usize], weight: &[usize], x_tracks: bool) -> Result<(f64, f64)> {
    let random = |shape: &[usize], scale| Tensor::randn(0f32, scale, shape, &Device::Cpu);
    let x = random(x, 1.0)?;
    let x = if x_tracks {
        Var::from_tensor(&x)?.as_tensor().clone()
    } else {
        x
    };
    let weight = Var::from_tensor(&random(weight, 0.2)?)?.as_tensor().clone();
    let bias = Var::zeros(weight.dim(0)?, DType::F32, &Device::Cpu)?
        .as_tensor()
        .clone();
    let t = [x, weight, bias];
    let (mut forward, mut both) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        let start = Instant::now();
        let y = op(&t)?;
        forward.push(start.elapsed().as_nanos());
        y.backward()?;
        both.push(start.elapsed().as_nanos());
    }
    let fast = |times: &mut Vec<u128>| {
        times.sort_unstable();
        times[REPEATS / 10] as f64 / BATCH as f64
    };
    Ok((fast(&mut forward), fast(&mut both)))
}

fn table() -> Result<()> {
    println!(
        "{:?}, {} threads, batch {BATCH}, ns an image",
        Isa::active(),
        rayon::current_num_threads()
    );
    println!("{:24}{:>10}{:>10}", "op", "forward", "backward");
    let ops: [Row<'_>; 5] = [
        (
            "conv 1-6 5x5 relu pool",
            conv,
            &[BATCH, 1, 32, 32],
            &[6, 1, 5, 5],
            false,
        ),
        (
            "conv 6-16 5x5 relu pool",
            conv,
            &[BATCH, 6, 14, 14],
            &[16, 6, 5, 5],
            true,
        ),
        ("linear 400-120", dense, &[BATCH, 400], &[120, 400], true),
        (
            "linear 120-84 relu",
            dense_relu,
            &[BATCH, 120],
            &[84, 120],
            true,
        ),
        ("linear 84-10", dense, &[BATCH, 84], &[10, 84], true),
    ];
    let mut sum = (0.0, 0.0);
    for (name, op, x, weight, x_tracks) in ops {
        let (forward, both) = time(op, x, weight, x_tracks)?;
        println!("{name:24}{forward:>10.0}{:>10.0}", both - forward);
        sum = (sum.0 + forward, sum.1 + both - forward);
    }
    println!("{:24}{:>10.0}{:>10.0}", "sum", sum.0, sum.1);
    Ok(())
}

fn main() -> Result<()> {
    let threads = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(2);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    // On a thread of the pool, so that an op does not wait for one to wake up.
    pool.map_err(candle_core::Error::wrap)?.install(table)
}
