//! LeNet-5: a training step of batch 128 and an epoch of 469 such steps, beside the same model out of candle's own ops.

use bench::{record_environment, targets, values};
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use lenet5::LeNet5;
use std::time::Duration;
use trainer::optimizer::{Adam, AdamOptions};

const BATCH: usize = 128;
const STEPS: usize = 469;
const SHAPE: &str = "128x1x32x32";

/// Distinct batches that the steps go through, so that the images do not stay in the cache.
const BATCHES: usize = 64;

fn batches() -> Result<Vec<(Tensor, Tensor)>> {
    let all = values(&[BATCHES * BATCH, 1, 32, 32])?;
    let labels = targets(BATCHES * BATCH, 10)?;
    let batch = |i: usize| {
        Ok((
            all.narrow(0, i * BATCH, BATCH)?,
            labels.narrow(0, i * BATCH, BATCH)?,
        ))
    };
    (0..BATCHES).map(batch).collect()
}

/// Our model, loss and optimizer.
struct Ours {
    model: LeNet5,
    adam: Adam,
}

impl Ours {
    fn new() -> Self {
        let model = LeNet5::new(0, DType::F32, &Device::Cpu).expect("the model can be made");
        let adam = Adam::new(AdamOptions::default(), model.parameters()).expect("Adam can be made");
        Self { model, adam }
    }

    fn step(&mut self, (images, labels): &(Tensor, Tensor)) -> Result<f32> {
        let loss = candle_losses::cross_entropy(&self.model.forward(images)?, labels)?;
        let gradients = loss.backward()?;
        self.adam
            .step(self.model.parameters(), &gradients)
            .map_err(candle_core::Error::wrap)?;
        loss.to_scalar()
    }
}

/// The same model as a user of candle alone writes it.
struct Stock {
    parameters: Vec<Var>,
    adam: AdamW,
}

impl Stock {
    fn new() -> Result<Self> {
        let model = LeNet5::new(0, DType::F32, &Device::Cpu)?;
        let parameters: Vec<Var> = model
            .parameters()
            .iter()
            .map(|(_, var)| var.clone())
            .collect();
        let options = ParamsAdamW {
            lr: 1e-3,
            weight_decay: 0.0,
            ..ParamsAdamW::default()
        };
        Ok(Self {
            adam: AdamW::new(parameters.clone(), options)?,
            parameters,
        })
    }

    fn step(&mut self, (images, labels): &(Tensor, Tensor)) -> Result<f32> {
        let [w1, b1, w2, b2, w3, b3, w4, b4, w5, b5] = &self.parameters[..] else {
            candle_core::bail!("expected ten parameters, got {}", self.parameters.len());
        };
        let conv = |x: &Tensor, w: &Var, b: &Var| {
            x.conv2d(w, 0, 1, 1, 1)?
                .broadcast_add(&b.reshape((1, (), 1, 1))?)
        };
        let dense = |x: &Tensor, w: &Var, b: &Var| x.matmul(&w.t()?)?.broadcast_add(b);
        let x = conv(images, w1, b1)?.relu()?.max_pool2d(2)?;
        let x = conv(&x, w2, b2)?.relu()?.max_pool2d(2)?;
        let x = conv(&x, w3, b3)?.flatten_from(1)?;
        let x = dense(&dense(&x, w4, b4)?.relu()?, w5, b5)?;
        let loss = candle_nn::loss::cross_entropy(&x, labels)?;
        self.adam.backward_step(&loss)?;
        loss.to_scalar()
    }
}

fn training(criterion: &mut Criterion) {
    record_environment().expect("the benchmark folder can be written");
    let batches = batches().expect("the batches can be made");
    let batch = |i: usize| &batches[i % BATCHES];
    let mut ours = Ours::new();
    let mut stock = Stock::new().expect("the stock model can be made");

    let mut group = criterion.benchmark_group("LeNet-5, one training step");
    group.sampling_mode(SamplingMode::Flat);
    let mut i = 0;
    group.bench_function(BenchmarkId::new("ours", SHAPE), |b| {
        b.iter(|| {
            i += 1;
            ours.step(batch(i)).unwrap()
        })
    });
    group.bench_function(BenchmarkId::new("candle", SHAPE), |b| {
        b.iter(|| {
            i += 1;
            stock.step(batch(i)).unwrap()
        })
    });
    group.finish();

    let mut group = criterion.benchmark_group("LeNet-5, one epoch of 469 steps");
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .measurement_time(Duration::from_secs(5));
    group.bench_function(BenchmarkId::new("ours", SHAPE), |b| {
        b.iter(|| {
            (0..STEPS)
                .map(|i| ours.step(batch(i)).unwrap())
                .sum::<f32>()
        })
    });
    // An epoch of stock Candle takes half a minute, so its time is that of 10 steps times 46.9.
    group.bench_function(BenchmarkId::new("candle", SHAPE), |b| {
        b.iter_custom(|iterations| {
            let start = std::time::Instant::now();
            for i in 0..10 * iterations as usize {
                stock.step(batch(i)).unwrap();
            }
            start.elapsed().mul_f64(STEPS as f64 / 10.0)
        })
    });
    group.finish();
}

criterion_group!(benches, training);
criterion_main!(benches);
