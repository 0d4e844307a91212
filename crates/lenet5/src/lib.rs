//! LeNet-5 for 32 x 32 grey images, as PyTorch users write it, on Candle tensors.
//!
//! | layer | output | parameters |
//! |---|---|---|
//! | `conv1` 5x5, relu, 2x2 max pooling | (N, 6, 14, 14) | 156 |
//! | `conv2` 5x5, relu, 2x2 max pooling | (N, 16, 5, 5) | 2,416 |
//! | `conv3` 5x5, flattened, no relu | (N, 120) | 48,120 |
//! | `fc1`, relu | (N, 84) | 10,164 |
//! | `fc2` | (N, 10) logits | 850 |
//!
//! 61,706 parameters in all. They are kept in one fixed order ([`PARAMETERS`], PyTorch's), drawn from a seed by PyTorch's rule
//! ([`initial_values`]), and stored under PyTorch's names ([`LeNet5::save`]).
//!
//! The forward pass exists twice ([`Forward`]): from fused ops, and from Candle's own, which is the readable form and the
//! oracle of the fast one.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use lenet5::LeNet5;
//!
//! # fn main() -> candle_core::Result<()> {
//! let model = LeNet5::new(0, DType::F32, &Device::Cpu)?;
//! let images = Tensor::zeros((3, 1, 32, 32), DType::F32, &Device::Cpu)?;
//! assert_eq!(model.forward(&images)?.dims(), [3, 10]);
//! # Ok(())
//! # }
//! ```
//!
//! Source: LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), with relu and
//! max pooling in place of the original's squashing and trainable subsampling.
#![deny(missing_docs)]

mod forward;
mod init;
mod model;
mod weights;

pub use forward::Forward;
pub use init::initial_values;
pub use model::{LeNet5, PARAMETER_COUNT, PARAMETERS, ParameterSpec};
pub use weights::WeightsError;

#[cfg(test)]
mod tests;
