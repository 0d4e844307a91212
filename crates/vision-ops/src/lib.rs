//! Convolution, linear and max-pooling ops for Candle on the CPU and, with the feature `cuda`, on NVIDIA GPUs, with gradients that
//! are right and fast.
//!
//! | op | computes |
//! |---|---|
//! | [`conv2d()`] | convolution with any stride, padding, dilation and groups, and a bias |
//! | [`conv2d_relu_max_pool2d()`] | convolution, bias, relu and max pooling in one, with a sparse backward pass |
//! | [`linear()`] | a dense layer with its bias and relu |
//! | [`max_pool2d()`] | the maximum of each window, any kernel and stride; the first maximum takes the whole gradient |
//! | [`sequential()`] | layers one after the other, whose activations stay out of Candle's graph |
//!
//! Every op takes tensors of any layout, tracks gradients through Candle's autograd, and gives no gradient to an argument
//! that tracks none. Backward passes are not differentiable again. Every op has a form out of tensor ops in its module
//! `composed`, which is the oracle of the tests and the path on devices that have no kernels; that of `sequential` are the other ops.
//!
//! Large results and their gradients cost page faults: a program that calls [`keep_freed_memory`] when it starts took about half the
//! time for a convolution with its backward pass (`cargo xtask bench vision`, with and without `--keep-memory`).
//!
//! On CUDA the matrix products are candle's (cuBLAS), everything around them kernels of this crate, in f32, f64, f16 and bf16 with
//! arithmetic in f32 for the last two. Nothing adds by atomics: the same bits from run to run on one GPU.

#![deny(missing_docs)]

pub mod conv2d;
pub mod conv2d_relu_max_pool2d;
#[cfg(feature = "cuda")]
mod cuda_kernel;
mod element;
mod error;
mod kernels;
mod layer_op;
pub mod linear;
pub mod max_pool2d;
mod relu;
pub mod sequential;
mod strided_view;
mod tensor_access;
#[cfg(test)]
mod test_support;

pub use candle_simd::heap::keep_freed_memory;

pub use conv2d::{Conv2dOptions, conv2d};
pub use conv2d_relu_max_pool2d::conv2d_relu_max_pool2d;
pub use error::VisionOpError;
pub use linear::linear;
pub use max_pool2d::max_pool2d;
pub use sequential::{Layer, sequential};

// The README's example is compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
