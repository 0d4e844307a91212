//! The file from which a run goes on to the same bits: weights, Adam's state and how far the run came.
//!
//! Safetensors with tensors `model.NAME`, `adam.exp_avg.NAME` and `adam.exp_avg_sq.NAME` in f32, and counters in the metadata.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use lenet5::{LeNet5, PARAMETERS};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::errors::{Result, TrainerError};
use crate::files::write_whole;
use crate::optimizer::{Adam, AdamState};

/// Names the format, so that another file is refused by name.
const FORMAT: &str = "lenet5-checkpoint-1";

/// How far a run came.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Progress {
    /// Epochs trained and measured.
    pub epochs_done: usize,
    /// Steps taken in the epoch after these.
    pub steps_done: usize,
    /// Sum of the losses of the samples of these steps.
    pub loss_sum: f64,
    /// The number of these samples.
    pub samples: usize,
}

/// A run's state at one moment.
pub struct Checkpoint {
    /// The model with the weights of that moment, in f32.
    pub model: LeNet5,
    /// The optimizer's state.
    pub adam: AdamState,
    /// How far the run came.
    pub progress: Progress,
}

/// Writes a checkpoint; a reader sees the old file or the new one, never a part.
///
/// # Errors
/// When the file cannot be written, or a tensor not copied from its device.
pub fn save(path: &Path, model: &LeNet5, adam: &Adam, progress: Progress) -> Result<()> {
    let state = adam.state(model.parameters())?;
    let mut buffers = Vec::with_capacity(3 * PARAMETERS.len());
    for ((name, var), (m, v)) in model.parameters().iter().zip(&state.moments) {
        buffers.push((format!("model.{name}"), bytes(var)?, var.dims()));
        buffers.push((format!("adam.exp_avg.{name}"), bytes(m)?, var.dims()));
        buffers.push((format!("adam.exp_avg_sq.{name}"), bytes(v)?, var.dims()));
    }
    let metadata: HashMap<String, String> = [
        ("format", FORMAT.to_string()),
        ("epochs_done", progress.epochs_done.to_string()),
        ("steps_done", progress.steps_done.to_string()),
        ("samples", progress.samples.to_string()),
        // Bits, so that the sum goes on exactly.
        ("loss_sum_bits", progress.loss_sum.to_bits().to_string()),
        ("adam_steps", state.steps.to_string()),
    ]
    .map(|(key, value)| (key.to_string(), value))
    .into();
    let unwritable = |error: safetensors::SafeTensorError| {
        TrainerError::Run(format!("cannot write {}: {error}", path.display()))
    };
    let views = buffers
        .iter()
        .map(|(name, bytes, dims)| {
            let view = TensorView::new(Dtype::F32, dims.to_vec(), bytes).map_err(unwritable)?;
            Ok((name, view))
        })
        .collect::<Result<Vec<_>>>()?;
    let file = safetensors::serialize(views, Some(metadata)).map_err(unwritable)?;
    write_whole(path, &file)
}

/// Reads a checkpoint onto `device`.
///
/// # Errors
/// When the file cannot be read or is not a checkpoint of this model; the message names what is wrong.
pub fn load(path: &Path, device: &Device) -> Result<Checkpoint> {
    let bad = |what: String| TrainerError::Data(format!("{}: {what}", path.display()));
    let content = fs::read(path).map_err(TrainerError::io("read", path))?;
    let not_safetensors = |error| {
        bad(format!(
            "not a checkpoint: not a safetensors file ({error})"
        ))
    };
    let file = SafeTensors::deserialize(&content).map_err(not_safetensors)?;
    let (_, header) = SafeTensors::read_metadata(&content).map_err(not_safetensors)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    if metadata.get("format").map(String::as_str) != Some(FORMAT) {
        return Err(bad(format!(
            "not a checkpoint: expected metadata format {FORMAT}, found {:?}",
            metadata.get("format")
        )));
    }
    let number = |key: &str| -> Result<u64> {
        let text = metadata.get(key).map(String::as_str);
        text.and_then(|text| text.parse().ok())
            .ok_or_else(|| bad(format!("metadata {key}: expected a number, found {text:?}")))
    };
    let tensor = |name: String, shape: &[usize]| -> Result<Tensor> {
        let view = file
            .tensor(&name)
            .map_err(|_| bad(format!("missing tensor {name}")))?;
        if view.dtype() != Dtype::F32 || view.shape() != shape {
            return Err(bad(format!(
                "tensor {name}: expected F32 of shape {shape:?}, found {:?} of shape {:?}",
                view.dtype(),
                view.shape()
            )));
        }
        Ok(Tensor::from_raw_buffer(
            view.data(),
            DType::F32,
            shape,
            &Device::Cpu,
        )?)
    };
    let mut weights = HashMap::new();
    let mut moments = Vec::with_capacity(PARAMETERS.len());
    for spec in &PARAMETERS {
        let name = spec.name;
        weights.insert(
            name.to_string(),
            tensor(format!("model.{name}"), spec.shape)?,
        );
        moments.push((
            tensor(format!("adam.exp_avg.{name}"), spec.shape)?,
            tensor(format!("adam.exp_avg_sq.{name}"), spec.shape)?,
        ));
    }
    Ok(Checkpoint {
        model: LeNet5::from_tensors(&weights, DType::F32, device)?,
        adam: AdamState {
            steps: number("adam_steps")?,
            moments,
        },
        progress: Progress {
            epochs_done: number("epochs_done")? as usize,
            steps_done: number("steps_done")? as usize,
            samples: number("samples")? as usize,
            loss_sum: f64::from_bits(number("loss_sum_bits")?),
        },
    })
}

fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.into_iter().flat_map(f32::to_le_bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::AdamOptions;

    #[test]
    fn a_checkpoint_reads_back_as_it_was_written() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("c.safetensors");
        let model = LeNet5::new(4, DType::F32, &Device::Cpu)?;
        let mut adam = Adam::new(AdamOptions::default(), model.parameters())?;
        let images = Tensor::ones((2, 1, 32, 32), DType::F32, &Device::Cpu)?;
        let grads = model.forward(&images)?.sqr()?.sum_all()?.backward()?;
        adam.step(model.parameters(), &grads)?;
        let progress = Progress {
            epochs_done: 3,
            steps_done: 17,
            loss_sum: 0.1 + 0.2,
            samples: 99,
        };
        save(&path, &model, &adam, progress)?;
        let loaded = load(&path, &Device::Cpu)?;
        assert_eq!(loaded.progress, progress);
        assert_eq!(loaded.adam.steps, 1);
        let state = adam.state(model.parameters())?;
        for (index, (name, var)) in model.parameters().iter().enumerate() {
            let pairs = [
                (
                    var.as_tensor(),
                    loaded.model.parameters()[index].1.as_tensor(),
                ),
                (&state.moments[index].0, &loaded.adam.moments[index].0),
                (&state.moments[index].1, &loaded.adam.moments[index].1),
            ];
            for (a, b) in pairs {
                assert!(bytes(a)? == bytes(b)?, "{name}");
            }
        }
        Ok(())
    }

    #[test]
    fn another_file_is_refused_with_its_name() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("c.safetensors");
        let refused = |path: &Path| load(path, &Device::Cpu).err().expect("refused");
        assert_eq!(refused(&path).exit_code(), 1);
        fs::write(&path, b"{}").expect("writable");
        assert!(refused(&path).message().contains("not a checkpoint"));
        LeNet5::new(0, DType::F32, &Device::Cpu)?.save(&path)?;
        let error = refused(&path);
        assert!(error.message().contains("expected metadata format"));
        assert!(error.message().contains("c.safetensors"));
        assert_eq!(error.exit_code(), 3);
        Ok(())
    }
}
