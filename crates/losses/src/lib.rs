//! Losses for [Candle](https://github.com/huggingface/candle) with hand-written forward and backward passes: above all a
//! fused [`cross_entropy`], a drop-in for candle-nn's with PyTorch's options and edge cases.
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//! use candle_losses::CrossEntropy;
//!
//! # fn main() -> candle_core::Result<()> {
//! let logits = Var::new(&[[1.0f32, 2.0, 3.0], [0.5, 0.0, -0.5]], &Device::Cpu)?;
//! let targets = Tensor::new(&[2i64, -100], &Device::Cpu)?;
//!
//! let loss = CrossEntropy::new().ignore_index(-100).label_smoothing(0.1).forward(&logits, &targets)?;
//! let gradients = loss.backward()?;
//! assert_eq!(gradients.get(&logits).unwrap().to_vec2::<f32>()?[1], [0.0; 3]);
//! # Ok(())
//! # }
//! ```
//!
//! # Losses
//!
//! Each has a builder with its options and a function with the defaults.
//!
//! | loss | function | formula of an element or row |
//! |---|---|---|
//! | [`CrossEntropy`] | [`cross_entropy`] | -log softmax(x)_y; class weights, `ignore_index`, label smoothing, probabilities, z-loss, softcap, scale |
//! | [`Nll`] | [`nll`] | -x_y of log-probabilities |
//! | [`BinaryCrossEntropyWithLogits`] | [`binary_cross_entropy_with_logits`] | -(p t log s(x) + (1 - t) log(1 - s(x))), s the sigmoid |
//! | [`Focal`] | [`focal`] | cross entropy times (1 - p_t)^gamma |
//! | [`Mse`] | [`mse`] | (x - t)^2 |
//! | [`L1`] | [`l1`] | \|x - t\| |
//! | [`SmoothL1`] | [`smooth_l1`] | quadratic below beta, then \|x - t\| - beta/2 |
//! | [`Huber`] | [`huber`] | quadratic below delta, then delta (\|x - t\| - delta/2) |
//! | [`KlDiv`] | [`kl_div`] | t (log t - x) of log-probabilities x |
//! | [`PoissonNll`] | [`poisson_nll`] | exp(x) - t x |
//! | [`SoftMargin`] | [`soft_margin`] | log(1 + exp(-t x)) |
//! | [`PointwiseLoss`] | | a formula of your own, given once; see [`pointwise`] |
//!
//! [`CrossEntropy::composed`] and [`composed`] are the same cross entropy in Candle's tensor operations, readable and the
//! oracle of the fused form. [`CrossEntropy::forward_with_outputs`] gives log-sum-exp, log-probability of the target,
//! argmax and the number correct from the same pass; [`CrossEntropy::value_and_grad`] gives loss and gradient without
//! Candle's graph, and [`CrossEntropy::value_and_grad_in_place`] writes the gradient over the logits.
//!
//! # Numerics
//!
//! - The loss is log d - (x_y - m) with m = max x and d = sum exp(x - m), never lse - x_y: a shift of all logits by 1e8
//!   changes nothing. Backward takes exp(x - m)/d, so the gradient is as stable.
//! - -inf is a masked class: it contributes 0 and its gradient is 0; as the target it gives +inf. NaN and +inf give NaN in
//!   their row only. A coefficient of exactly 0 contributes 0. An ignored row is not read at all.
//! - f16 and bf16 are computed and summed in f32; the loss comes in f32 and the gradient is rounded once. The mean over rows
//!   is summed in f64.
//! - The f32 exponential of softmax has a relative error of at most (2 + |x - m|) 2^-23, less than half a unit in the last
//!   place of d for each term. For f16 and bf16 logits it is at most 2^-18 + |x - m| 2^-23: a hundredth of what rounding a
//!   logit to f16 may have changed.
//! - The bits do not depend on the number of threads, nor on the run. They may depend on the instruction set, whose vectors
//!   sum in an order of their own.
//! - Second derivatives work where Candle keeps the graph (`CANDLE_GRAD_DO_NOT_DETACH`); an argument that tracks no
//!   gradient gets none.
//!
//! # Memory
//!
//! Beyond logits and gradient, forward with backward keeps one number a row, and
//! [`CrossEntropy::value_and_grad`] of a mean keeps none; rows that need it have working space of a row in cache. Strided,
//! offset and broadcast logits are read where they lie. Candle's own `backward` allocates zeros of the gradient's size
//! and adds to them for each edge of the graph, which for large logits costs several times the loss: where that matters, take
//! `value_and_grad`.
//!
//! On Linux, gradients from 4 MiB on ask for huge pages. For those from 512 KiB on a few words are read from `/proc/self/pagemap`, which
//! stays open: they tell whether memory that the allocator hands out again is mapped to the kernel's page of zeros, and is
//! better given back before it is written. Where that file cannot be opened nothing else changes.
//!
//! glibc gives buffers of megabytes back to the kernel as soon as they are freed, and the next step faults them in again. A
//! program that calls [`keep_freed_memory`] when it starts keeps them, which about halves the time of `backward` from
//! 65,536 x 10 logits on (`cargo xtask bench losses`, with and without `--keep-memory`):
//!
//! ```
//! candle_losses::keep_freed_memory(1 << 30); // bytes: several times what a step allocates
//! ```
//!
//! # Speed
//!
//! The CPU kernels are chosen at run time: AVX-512, AVX2, or portable code for any machine; nothing depends on compiler
//! flags. `CANDLE_SIMD=avx512|avx2|portable` asks for a narrower one. Work is spread over rayon's threads
//! (`RAYON_NUM_THREADS`); small problems stay on the calling thread.
//!
//! # Devices and features
//!
//! The fused ops run on the CPU and, with the feature `cuda`, on NVIDIA GPUs. The feature needs nvcc and CUDA's headers and
//! libraries at build time. Forward and backward do not wait for a GPU: targets out of range give NaN there unless
//! [`CrossEntropy::validate_targets`] or [`Nll::validate_targets`] asks for the error. A loss of no elements is the policy's there
//! too, but to go back from it to a tensor without elements is an error: Candle cannot allocate that gradient. On other devices
//! the fused ops return Candle's error that there is no implementation, or take the composed form where they say so;
//! [`CrossEntropy::composed`] runs wherever Candle does. The CUDA kernels are tested on an emulated driver, and have not run on
//! a GPU yet.
//!
//! # Versions
//!
//! 0.11.x works with candle 0.11: the minor version is Candle's, the patch version is this crate's own.
//!
//! # Examples
//!
//! `cargo run --release --example NAME` with `drop_in`, `label_smoothing`, `ignore_index`, `custom_loss`,
//! `check_my_gradient`.

#![deny(missing_docs)]

mod binary_cross_entropy;
pub mod composed;
mod cross_entropy;
#[cfg(feature = "cuda")]
mod cuda_kernel;
mod focal;
mod graph;
mod huber;
mod kl_div;
mod l1;
mod mse;
mod nll;
pub mod pointwise;
mod poisson_nll;
mod reduction;
mod smooth_l1;
mod soft_margin;

/// The Candle that this crate works with, so that a project need not name it a second time.
pub use candle_core;

pub use candle_simd::heap::keep_freed_memory;

pub use binary_cross_entropy::{BinaryCrossEntropyWithLogits, binary_cross_entropy_with_logits};
pub use cross_entropy::{CrossEntropy, CrossEntropyOutput, cross_entropy};
pub use focal::{Focal, focal};
pub use huber::{Huber, huber};
pub use kl_div::{KlDiv, kl_div};
pub use l1::{L1, l1};
pub use mse::{Mse, mse};
pub use nll::{Nll, nll};
pub use pointwise::{Dual, Float, Pointwise, PointwiseLoss};
pub use poisson_nll::{PoissonNll, poisson_nll};
pub use reduction::{EmptyPolicy, Reduction};
pub use smooth_l1::{SmoothL1, smooth_l1};
pub use soft_margin::{SoftMargin, soft_margin};
