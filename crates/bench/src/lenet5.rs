//! LeNet-5 as the benchmarks train it: ours, and the same model out of candle's own ops.

use crate::{targets, values};
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use lenet5::LeNet5;
use trainer::config::LossKind;
use trainer::optimizer::{Adam, AdamOptions};
use trainer::training::gradients;

/// Images a step.
pub const BATCH: usize = 128;

/// Steps of an epoch over 60,000 images.
pub const STEPS: usize = 469;

/// A batch of images, as it stands in a table.
pub const SHAPE: &str = "128x1x32x32";

/// That many distinct batches of images and labels.
pub fn batches(count: usize, device: &Device) -> Result<Vec<(Tensor, Tensor)>> {
    let all = values(&[count * BATCH, 1, 32, 32])?.to_device(device)?;
    let labels = targets(count * BATCH, 10)?.to_device(device)?;
    let batch = |i: usize| {
        Ok((
            all.narrow(0, i * BATCH, BATCH)?,
            labels.narrow(0, i * BATCH, BATCH)?,
        ))
    };
    (0..count).map(batch).collect()
}

/// Our model, loss and optimizer.
pub struct Ours {
    model: LeNet5,
    adam: Adam,
}

impl Ours {
    /// At its first step.
    pub fn new(device: &Device) -> Result<Self> {
        let model = LeNet5::new(0, DType::F32, device)?;
        let adam = Adam::new(AdamOptions::default(), model.parameters())
            .map_err(candle_core::Error::wrap)?;
        Ok(Self { model, adam })
    }

    /// Takes a step and returns its loss.
    pub fn step(&mut self, (images, labels): &(Tensor, Tensor)) -> Result<Tensor> {
        let (loss, gradients) = gradients(&self.model, LossKind::Fused, images, labels)?;
        self.adam
            .step_of_parts(
                self.model.parameters(),
                &gradients.iter().collect::<Vec<_>>(),
            )
            .map_err(candle_core::Error::wrap)?;
        Ok(loss)
    }
}

/// The same model as a user of candle alone writes it.
pub struct Stock {
    parameters: Vec<Var>,
    adam: AdamW,
}

impl Stock {
    /// At its first step.
    pub fn new(device: &Device) -> Result<Self> {
        let model = LeNet5::new(0, DType::F32, device)?;
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

    /// Takes a step and returns its loss.
    pub fn step(&mut self, (images, labels): &(Tensor, Tensor)) -> Result<Tensor> {
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
        Ok(loss)
    }
}
