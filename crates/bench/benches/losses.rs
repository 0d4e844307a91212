//! Cross entropy: forward, value and gradient, and through Candle's graph, beside candle-nn's.

use bench::{label, record_environment, targets, values};
use candle_core::{DType, Result, Tensor, Var};
use candle_losses::CrossEntropy;
use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use std::hint::black_box;

const SHAPES: [(usize, usize); 5] = [
    (128, 10),
    (65_536, 10),
    (8_192, 1_000),
    (2_048, 32_000),
    (1_024, 128_256),
];

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
    let variable = Var::from_tensor(&logits)?;
    group.bench_function(BenchmarkId::new("ours backward()", &shape), |b| {
        b.iter(|| through_the_graph(|x| ours.forward(x, &targets), black_box(&variable)).unwrap())
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
