//! The file of a recorded run, checked whole before anything is computed.
//!
//! Safetensors: `init.NAME` (f32), and in f64 `step0.logits`, `step0.grad.NAME`, `losses` and `final.NAME`, with NAME a parameter of
//! LeNet-5; optionally `step0.images_u8`, the first resized images. Metadata: `batch`, `steps` and `first_index`, and optionally
//! `lr` (1e-3 where it is absent). Step `s` uses `batch` training images from `first_index + s * batch` on, in file order.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use fashion_mnist::Split;
use lenet5::PARAMETERS;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use crate::errors::{Result, TrainerError};

const PIXELS: usize = 32 * 32;

/// A recorded run.
#[derive(Debug)]
pub struct Golden {
    path: PathBuf,
    pub(super) batch_size: usize,
    /// Steps recorded, at least one.
    pub steps: usize,
    pub(super) first_index: usize,
    pub(super) lr: f64,
    pub(super) init: HashMap<String, Tensor>,
    pub(super) logits: Tensor,
    pub(super) gradients: Vec<Tensor>,
    pub(super) losses: Vec<f64>,
    pub(super) finals: Vec<Tensor>,
    images: Vec<u8>,
}

impl Golden {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`TrainerError::Data`] that names the file, what was expected and what was found.
    pub fn read(path: &Path) -> Result<Self> {
        let bad = |what: String| TrainerError::Data(format!("{}: {what}", path.display()));
        let content = fs::read(path).map_err(|error| bad(format!("cannot be read: {error}")))?;
        let malformed = |error| bad(format!("not a safetensors file: {error}"));
        let file = SafeTensors::deserialize(&content).map_err(malformed)?;
        let (_, header) = SafeTensors::read_metadata(&content).map_err(malformed)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let count = |key: &str, least: usize| -> Result<usize> {
            let text = metadata.get(key);
            text.and_then(|text| text.parse().ok())
                .filter(|&number| number >= least)
                .ok_or_else(|| {
                    bad(format!(
                        "metadata {key}: expected a whole number from {least} up, found {text:?}"
                    ))
                })
        };
        let (batch_size, steps) = (count("batch", 1)?, count("steps", 1)?);
        let first_index = count("first_index", 0)?;
        let lr = match metadata.get("lr") {
            None => 1e-3,
            Some(text) => text
                .parse()
                .ok()
                .filter(|lr: &f64| lr.is_finite() && *lr > 0.0)
                .ok_or_else(|| {
                    bad(format!(
                        "metadata lr: expected a positive number, found {text:?}"
                    ))
                })?,
        };
        let tensor = |name: &str, dtype: DType, shape: &[usize]| -> Result<Tensor> {
            let view = file
                .tensor(name)
                .map_err(|_| bad(format!("missing tensor {name}")))?;
            if view.dtype() != Dtype::from(dtype) || view.shape() != shape {
                return Err(bad(format!(
                    "tensor {name}: expected {dtype:?} of shape {shape:?}, found {:?} of shape {:?}",
                    view.dtype(),
                    view.shape()
                )));
            }
            Ok(Tensor::from_raw_buffer(
                view.data(),
                dtype,
                shape,
                &Device::Cpu,
            )?)
        };
        let of_each = |prefix: &str, dtype: DType| -> Result<Vec<Tensor>> {
            PARAMETERS
                .iter()
                .map(|spec| tensor(&format!("{prefix}.{}", spec.name), dtype, spec.shape))
                .collect()
        };
        let init = of_each("init", DType::F32)?;
        let images = match file.tensor("step0.images_u8") {
            Err(_) => Vec::new(),
            Ok(view) => {
                let fits = view.dtype() == Dtype::U8
                    && view.shape().len() == 4
                    && view.shape()[0] <= batch_size
                    && view.shape()[1..] == [1, 32, 32];
                if !fits {
                    return Err(bad(format!(
                        "tensor step0.images_u8: expected U8 of shape [N, 1, 32, 32] with N up to {batch_size}, found {:?} of shape {:?}",
                        view.dtype(),
                        view.shape()
                    )));
                }
                view.data().to_vec()
            }
        };
        Ok(Self {
            path: path.to_path_buf(),
            batch_size,
            steps,
            first_index,
            lr,
            init: PARAMETERS
                .iter()
                .zip(init)
                .map(|(spec, tensor)| (spec.name.to_string(), tensor))
                .collect(),
            logits: tensor("step0.logits", DType::F64, &[batch_size, 10])?,
            gradients: of_each("step0.grad", DType::F64)?,
            losses: tensor("losses", DType::F64, &[steps])?.to_vec1::<f64>()?,
            finals: of_each("final", DType::F64)?,
            images,
        })
    }

    /// Checks that the images the record names are there and are those it was taken on.
    pub(super) fn check_images(&self, train: &Split) -> Result<()> {
        let bad = |what: String| TrainerError::Data(format!("{}: {what}", self.path.display()));
        let end = self
            .batch_size
            .checked_mul(self.steps)
            .and_then(|images| images.checked_add(self.first_index));
        if end.is_none_or(|end| end > train.len()) {
            return Err(bad(format!(
                "expected first_index + batch * steps of at most {} (the training images), found {} + {} * {}",
                train.len(),
                self.first_index,
                self.batch_size,
                self.steps
            )));
        }
        let start = self.first_index * PIXELS;
        let ours = &train.images_u8()[start..start + self.images.len()];
        match ours.iter().zip(&self.images).position(|(a, b)| a != b) {
            None => Ok(()),
            Some(at) => Err(bad(format!(
                "step0.images_u8 differs from the training images: image {}, pixel {}: expected {}, found {}",
                self.first_index + at / PIXELS,
                at % PIXELS,
                ours[at],
                self.images[at]
            ))),
        }
    }

    /// Images and labels of a step. Normalised in double precision whatever `dtype` is, as the recording was.
    pub(super) fn batch(
        &self,
        train: &Split,
        step: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<(Tensor, Tensor)> {
        let start = self.first_index + step * self.batch_size;
        let end = start + self.batch_size;
        let pixels: Vec<f64> = train.images_u8()[start * PIXELS..end * PIXELS]
            .iter()
            .map(|&pixel| (f64::from(pixel) / 255.0 - 0.5) / 0.5)
            .collect();
        let labels: Vec<u32> = train.labels()[start..end]
            .iter()
            .map(|&label| u32::from(label))
            .collect();
        let images = Tensor::from_vec(pixels, (self.batch_size, 1, 32, 32), &Device::Cpu)?;
        Ok((
            images.to_dtype(dtype)?.to_device(device)?,
            Tensor::from_vec(labels, self.batch_size, device)?,
        ))
    }
}
