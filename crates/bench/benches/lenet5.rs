//! LeNet-5: a training step of batch 128 and an epoch of 469 such steps, beside the same model out of candle's own ops.
//!
//! Ours runs with the settings that the trainer starts itself with, stock Candle without them, and both are read once a process:
//! `BENCH_ONLY=ours` or `BENCH_ONLY=candle` measures one of the two.

use bench::lenet5::{Ours, SHAPE, STEPS, Stock, batches};
use bench::record_environment;
use candle_core::{Device, Result, Tensor};
use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group};
use std::time::Duration;

/// Distinct batches that the steps go through, so that the images do not stay in the cache.
const BATCHES: usize = 64;

/// The one contender that this process measures, where the environment names one.
fn only() -> Option<String> {
    std::env::var("BENCH_ONLY").ok()
}

/// The loss of a step, read as a training loop reads it.
fn read(loss: Result<Tensor>) -> f32 {
    loss.and_then(|loss| loss.to_scalar())
        .expect("the step can be taken")
}

fn training(criterion: &mut Criterion) {
    record_environment().expect("the benchmark folder can be written");
    // As the trainer does it: this thread is one of the pool's.
    trainer::threads::init(None).expect("the pool of threads can be started");
    let only = only();
    let takes_part = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let batches = batches(BATCHES, &Device::Cpu).expect("the batches can be made");
    let batch = |i: usize| &batches[i % BATCHES];
    let mut ours = Ours::new(&Device::Cpu).expect("our model can be made");
    let mut stock = Stock::new(&Device::Cpu).expect("the stock model can be made");

    let mut group = criterion.benchmark_group("LeNet-5, one training step");
    group.sampling_mode(SamplingMode::Flat);
    let mut i = 0;
    if takes_part("ours") {
        group.bench_function(BenchmarkId::new("ours", SHAPE), |b| {
            b.iter(|| {
                i += 1;
                read(ours.step(batch(i)))
            })
        });
    }
    if takes_part("candle") {
        group.bench_function(BenchmarkId::new("candle", SHAPE), |b| {
            b.iter(|| {
                i += 1;
                read(stock.step(batch(i)))
            })
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("LeNet-5, one epoch of 469 steps");
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .measurement_time(Duration::from_secs(5));
    if takes_part("ours") {
        group.bench_function(BenchmarkId::new("ours", SHAPE), |b| {
            b.iter(|| (0..STEPS).map(|i| read(ours.step(batch(i)))).sum::<f32>())
        });
    }
    // An epoch of stock Candle takes half a minute, so its time is that of 10 steps times 46.9.
    if takes_part("candle") {
        group.bench_function(BenchmarkId::new("candle", SHAPE), |b| {
            b.iter_custom(|iterations| {
                let start = std::time::Instant::now();
                for i in 0..10 * iterations as usize {
                    read(stock.step(batch(i)));
                }
                start.elapsed().mul_f64(STEPS as f64 / 10.0)
            })
        });
    }
    group.finish();
}

criterion_group!(benches, training);

fn main() {
    if only().as_deref() == Some("ours") {
        trainer::environment::prepare();
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
