//! Weights in files: safetensors under PyTorch's parameter names.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as FileDtype, TensorView};

use crate::model::{LeNet5, PARAMETERS};

/// Why weights could not be read or written. The message names the file or tensor, what was expected and what came.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read.
    #[error("cannot read weights from {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write weights to {path}: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The content is not safetensors.
    #[error(
        "not a safetensors file: {reason}; expected a file that LeNet5::save or safetensors.torch.save_file wrote"
    )]
    Format {
        /// What the parser said.
        reason: String,
    },
    /// Tensors of the model are not there.
    #[error(
        "missing tensors {names}; LeNet-5 needs all of conv1, conv2, conv3, fc1, fc2, each with .weight and .bias"
    )]
    Missing {
        /// Their names, joined.
        names: String,
    },
    /// There are tensors that the model does not have.
    #[error(
        "unexpected tensors {names}; LeNet-5 has conv1, conv2, conv3, fc1, fc2, each with .weight and .bias, and nothing else"
    )]
    Unexpected {
        /// Their names, joined.
        names: String,
    },
    /// A tensor has the wrong shape.
    #[error("tensor {name}: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// The model's shape.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// A tensor is not of a float type.
    #[error("tensor {name}: expected dtype F32, F64, F16 or BF16, found {found}")]
    Dtype {
        /// The tensor.
        name: String,
        /// The dtype found.
        found: String,
    },
    /// An error of the above kinds in a file.
    #[error("{path}: {inner}", path = path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        inner: Box<WeightsError>,
    },
    /// Candle failed to build or read a tensor.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl From<WeightsError> for candle_core::Error {
    fn from(error: WeightsError) -> Self {
        match error {
            WeightsError::Candle(inner) => inner,
            other => candle_core::Error::Wrapped(Box::new(other)),
        }
    }
}

impl LeNet5 {
    /// Reads a file written by [`LeNet5::save`] or by `safetensors.torch.save_file(net.state_dict(), ...)`, converted to `dtype`.
    ///
    /// # Errors
    /// When the file cannot be read, or a tensor is missing, unexpected, of the wrong shape or not a float.
    pub fn load(
        path: impl AsRef<Path>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        let path = path.as_ref();
        let in_file = |inner| WeightsError::InFile {
            path: path.to_path_buf(),
            inner: Box::new(inner),
        };
        let bytes = fs::read(path).map_err(|source| WeightsError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| {
            in_file(WeightsError::Format {
                reason: error.to_string(),
            })
        })?;
        let mut tensors = HashMap::new();
        for (name, view) in file.iter() {
            // The check of names comes first: a foreign tensor is reported as such, whatever its dtype.
            if PARAMETERS.iter().all(|spec| spec.name != name) {
                tensors.insert(
                    name.to_string(),
                    Tensor::zeros(0, DType::F32, &Device::Cpu)?,
                );
                continue;
            }
            tensors.insert(name.to_string(), read_view(name, &view).map_err(in_file)?);
        }
        Self::from_tensors(&tensors, dtype, device).map_err(in_file)
    }

    /// A model with copies of the named tensors, converted to `dtype`.
    ///
    /// # Errors
    /// When a tensor is missing, unexpected, of the wrong shape or not a float.
    pub fn from_tensors(
        tensors: &HashMap<String, Tensor>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        let mut unexpected: Vec<&str> = tensors
            .keys()
            .map(String::as_str)
            .filter(|name| PARAMETERS.iter().all(|spec| spec.name != *name))
            .collect();
        unexpected.sort_unstable();
        let missing: Vec<&str> = PARAMETERS
            .iter()
            .map(|spec| spec.name)
            .filter(|name| !tensors.contains_key(*name))
            .collect();
        if !missing.is_empty() {
            return Err(WeightsError::Missing {
                names: missing.join(", "),
            });
        }
        if !unexpected.is_empty() {
            return Err(WeightsError::Unexpected {
                names: unexpected.join(", "),
            });
        }
        let mut ordered = Vec::with_capacity(PARAMETERS.len());
        for spec in &PARAMETERS {
            let tensor = &tensors[spec.name];
            if !tensor.dtype().is_float() {
                return Err(WeightsError::Dtype {
                    name: spec.name.to_string(),
                    found: format!("{:?}", tensor.dtype()),
                });
            }
            if tensor.dims() != spec.shape {
                return Err(WeightsError::Shape {
                    name: spec.name.to_string(),
                    expected: spec.shape.to_vec(),
                    found: tensor.dims().to_vec(),
                });
            }
            ordered.push(tensor.clone());
        }
        Ok(Self::from_ordered(ordered, dtype, device)?)
    }

    /// Writes the parameters as safetensors under PyTorch's names, so that
    /// `net.load_state_dict(safetensors.torch.load_file(path))` takes the file as it is.
    ///
    /// The file appears whole or not at all: it is written beside its place and renamed.
    ///
    /// # Errors
    /// When the file cannot be written, for example because the folder is missing or the disk is full.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), WeightsError> {
        let path = path.as_ref();
        let bytes = self.to_safetensors()?;
        write_whole(path, &bytes).map_err(|source| WeightsError::Write {
            path: path.to_path_buf(),
            source,
        })
    }

    /// The bytes of the file that [`LeNet5::save`] writes.
    ///
    /// # Errors
    /// When a parameter cannot be copied from its device.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, WeightsError> {
        let mut buffers = Vec::with_capacity(PARAMETERS.len());
        for (name, var) in self.parameters() {
            buffers.push((*name, little_endian(var)?, var.dims()));
        }
        let file_dtype = file_dtype(self.dtype()).ok_or_else(|| WeightsError::Dtype {
            name: PARAMETERS[0].name.to_string(),
            found: format!("{:?}", self.dtype()),
        })?;
        let format_error = |error: safetensors::SafeTensorError| WeightsError::Format {
            reason: error.to_string(),
        };
        let views = buffers
            .iter()
            .map(|(name, bytes, dims)| {
                let view =
                    TensorView::new(file_dtype, dims.to_vec(), bytes).map_err(format_error)?;
                Ok((*name, view))
            })
            .collect::<Result<Vec<_>, WeightsError>>()?;
        // PyTorch's own writer sets this key; some readers refuse a file without it.
        let metadata = [("format".to_string(), "pt".to_string())].into();
        safetensors::serialize(views, Some(metadata)).map_err(format_error)
    }
}

fn file_dtype(dtype: DType) -> Option<FileDtype> {
    match dtype {
        DType::F32 => Some(FileDtype::F32),
        DType::F64 => Some(FileDtype::F64),
        DType::F16 => Some(FileDtype::F16),
        DType::BF16 => Some(FileDtype::BF16),
        _ => None,
    }
}

fn read_view(name: &str, view: &TensorView<'_>) -> Result<Tensor, WeightsError> {
    let dtype = match view.dtype() {
        FileDtype::F32 => DType::F32,
        FileDtype::F64 => DType::F64,
        FileDtype::F16 => DType::F16,
        FileDtype::BF16 => DType::BF16,
        other => {
            return Err(WeightsError::Dtype {
                name: name.to_string(),
                found: format!("{other:?}"),
            });
        }
    };
    Ok(Tensor::from_raw_buffer(
        view.data(),
        dtype,
        view.shape(),
        &Device::Cpu,
    )?)
}

/// The values in row-major order as the bytes that safetensors keeps.
fn little_endian(tensor: &Tensor) -> candle_core::Result<Vec<u8>> {
    let flat = tensor.flatten_all()?;
    Ok(match tensor.dtype() {
        DType::F64 => bytes_of(flat.to_vec1::<f64>()?, f64::to_le_bytes),
        DType::F32 => bytes_of(flat.to_vec1::<f32>()?, f32::to_le_bytes),
        DType::F16 => bytes_of(flat.to_vec1::<f16>()?, f16::to_le_bytes),
        DType::BF16 => bytes_of(flat.to_vec1::<bf16>()?, bf16::to_le_bytes),
        other => {
            return Err(candle_core::Error::Msg(format!(
                "LeNet5: weights of dtype {other:?} cannot be saved; use f32, f64, f16 or bf16"
            )));
        }
    })
}

fn bytes_of<T, const N: usize>(values: Vec<T>, to_bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.into_iter().flat_map(to_bytes).collect()
}

fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".partial");
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        // Some file systems report a full disk only here.
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}
