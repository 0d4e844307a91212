//! `conv2d` for common shapes: forward, and forward with backward, beside candle's own.

use bench::{label, record_environment, values};
use candle_core::{Result, Tensor, Var};
use candle_vision_ops::{Conv2dOptions, conv2d};
use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use std::hint::black_box;

/// Batch, channels in, channels out, height and width, kernel, padding.
const SHAPES: [[usize; 6]; 5] = [
    [32, 3, 16, 32, 3, 1],
    [32, 16, 32, 32, 3, 1],
    [32, 64, 64, 32, 3, 1],
    [32, 3, 16, 32, 5, 2],
    [32, 16, 32, 32, 5, 2],
];

fn convolutions(criterion: &mut Criterion) {
    record_environment().expect("the benchmark folder can be written");
    for shape in SHAPES {
        measure(criterion, shape).expect("the benchmark runs");
    }
}

fn measure(
    criterion: &mut Criterion,
    [batch, channels_in, channels_out, size, kernel, padding]: [usize; 6],
) -> Result<()> {
    let name = format!(
        "{} to {channels_out}, {}",
        label(&[batch, channels_in, size, size]),
        label(&[kernel, kernel])
    );
    let x = Var::from_tensor(&values(&[batch, channels_in, size, size])?)?;
    let weight = Var::from_tensor(&values(&[channels_out, channels_in, kernel, kernel])?)?;
    let bias = Var::from_tensor(&values(&[channels_out])?)?;
    let options = Conv2dOptions {
        padding: (padding, padding),
        ..Conv2dOptions::default()
    };
    let ours = || conv2d(black_box(&x), &weight, Some(&bias), options);
    let candle = || {
        let y = black_box(x.as_tensor()).conv2d(&weight, padding, 1, 1, 1)?;
        y.broadcast_add(&bias.reshape((1, channels_out, 1, 1))?)
    };
    // What `no_grad` is to PyTorch: the same values, outside any graph.
    let (frozen, frozen_weight, frozen_bias) = (x.detach(), weight.detach(), bias.detach());
    let ours_forward = || {
        conv2d(
            black_box(&frozen),
            &frozen_weight,
            Some(&frozen_bias),
            options,
        )
    };
    let candle_forward = || {
        let y = black_box(&frozen).conv2d(&frozen_weight, padding, 1, 1, 1)?;
        y.broadcast_add(&frozen_bias.reshape((1, channels_out, 1, 1))?)
    };
    // Candle's backward pass starts from an upstream gradient of ones, of any shape. A sum in between would be timed as well.
    let with_backward = |forward: &dyn Fn() -> Result<Tensor>| forward()?.backward();

    let mut group = criterion.benchmark_group("conv2d, forward");
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(BenchmarkId::new("ours", &name), |b| {
        b.iter(|| ours_forward().unwrap())
    });
    group.bench_function(BenchmarkId::new("candle", &name), |b| {
        b.iter(|| candle_forward().unwrap())
    });
    group.finish();

    let mut group = criterion.benchmark_group("conv2d, forward and backward");
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(BenchmarkId::new("ours", &name), |b| {
        b.iter(|| with_backward(&ours).unwrap())
    });
    group.bench_function(BenchmarkId::new("candle", &name), |b| {
        b.iter(|| with_backward(&candle).unwrap())
    });
    group.finish();
    Ok(())
}

criterion_group!(benches, convolutions);
criterion_main!(benches);
