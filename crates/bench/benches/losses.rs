//! Cross entropy: forward, value and gradient, and through Candle's graph, beside candle-nn's and the floor.
//!
//! The floor is what memory allows: one read of the logits for the forward pass, one read and one write into memory that
//! is already there for the gradient, on the same threads and without any arithmetic worth the name.

use bench::{label, record_environment, targets, values};
use candle_core::{DType, Result, Tensor, Var};
use candle_losses::CrossEntropy;
use candle_simd::prefetch::prefetch_stream;
use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use rayon::prelude::*;
use std::hint::black_box;

const SHAPES: [(usize, usize); 5] = [
    (128, 10),
    (65_536, 10),
    (8_192, 1_000),
    (2_048, 32_000),
    (1_024, 128_256),
];

/// Elements that a thread takes at a time to measure the floor.
const CHUNK: usize = 1 << 15;

/// Reads every value once.
fn read(values: &[f32]) -> f32 {
    let largest = |chunk: &[f32]| {
        // Sixteen running maxima, so that the loads and not the chain of comparisons take the time.
        let mut lanes = [f32::NEG_INFINITY; 16];
        for values in chunk.chunks_exact(16) {
            prefetch_stream(values.as_ptr(), values.len());
            for (lane, value) in lanes.iter_mut().zip(values) {
                *lane = if *value > *lane { *value } else { *lane };
            }
        }
        lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
    };
    values
        .par_chunks(CHUNK)
        .map(largest)
        .reduce(|| f32::NEG_INFINITY, f32::max)
}

/// Reads every value and writes it elsewhere.
fn copy(from: &[f32], to: &mut [f32]) {
    to.par_chunks_mut(CHUNK)
        .zip(from.par_chunks(CHUNK))
        .for_each(|(to, from)| to.copy_from_slice(from));
}

/// The loss and the gradient that Candle's graph gives for `loss`.
fn through_the_graph(loss: impl Fn(&Tensor) -> Result<Tensor>, logits: &Var) -> Result<Tensor> {
    let gradients = loss(logits)?.backward()?;
    gradients
        .get(logits)
        .cloned()
        .ok_or_else(|| candle_core::Error::msg("the logits have no gradient"))
}

fn cross_entropy(criterion: &mut Criterion) {
    record_environment().expect("the benchmark folder can be written");
    for (rows, classes) in SHAPES {
        measure(criterion, rows, classes).expect("the benchmark runs");
    }
}

fn measure(criterion: &mut Criterion, rows: usize, classes: usize) -> Result<()> {
    let shape = label(&[rows, classes]);
    let logits = values(&[rows, classes])?;
    let targets = targets(rows, classes)?;
    let ours = CrossEntropy::new();

    let mut group = criterion.benchmark_group("cross entropy, forward");
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(BenchmarkId::new("ours", &shape), |b| {
        b.iter(|| ours.forward(black_box(&logits), &targets).unwrap())
    });
    group.bench_function(BenchmarkId::new("candle-nn", &shape), |b| {
        b.iter(|| candle_nn::loss::cross_entropy(black_box(&logits), &targets).unwrap())
    });
    let flat = logits.flatten_all()?.to_vec1::<f32>()?;
    group.bench_function(BenchmarkId::new("floor", &shape), |b| {
        b.iter(|| read(black_box(&flat)))
    });
    for (name, dtype) in [("ours f16", DType::F16), ("ours bf16", DType::BF16)] {
        let logits = logits.to_dtype(dtype)?;
        group.bench_function(BenchmarkId::new(name, &shape), |b| {
            b.iter(|| ours.forward(black_box(&logits), &targets).unwrap())
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("cross entropy, value and gradient");
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(BenchmarkId::new("ours", &shape), |b| {
        b.iter(|| ours.value_and_grad(black_box(&logits), &targets).unwrap())
    });
    let mut there = flat.clone();
    group.bench_function(BenchmarkId::new("floor", &shape), |b| {
        b.iter(|| copy(black_box(&flat), &mut there))
    });
    let variable = Var::from_tensor(&logits)?;
    group.bench_function(BenchmarkId::new("ours backward()", &shape), |b| {
        b.iter(|| through_the_graph(|x| ours.forward(x, &targets), black_box(&variable)).unwrap())
    });
    // What Candle's `backward` adds for the one edge of this graph, whoever computes the gradient.
    group.bench_function(BenchmarkId::new("candle's zeros + add", &shape), |b| {
        b.iter(|| {
            logits
                .zeros_like()
                .unwrap()
                .add(black_box(&logits))
                .unwrap()
        })
    });
    group.bench_function(BenchmarkId::new("candle-nn", &shape), |b| {
        let loss = |x: &Tensor| candle_nn::loss::cross_entropy(x, &targets);
        b.iter(|| through_the_graph(loss, black_box(&variable)).unwrap())
    });
    for (name, dtype) in [("ours f16", DType::F16), ("ours bf16", DType::BF16)] {
        let logits = logits.to_dtype(dtype)?;
        group.bench_function(BenchmarkId::new(name, &shape), |b| {
            b.iter(|| ours.value_and_grad(black_box(&logits), &targets).unwrap())
        });
    }
    group.bench_function(BenchmarkId::new("ours in place", &shape), |b| {
        b.iter_batched(
            || logits.copy().unwrap(),
            |given_up| {
                ours.value_and_grad_in_place(black_box(given_up), &targets)
                    .unwrap()
            },
            BatchSize::PerIteration,
        )
    });
    group.finish();
    Ok(())
}

criterion_group!(benches, cross_entropy);
criterion_main!(benches);
