//! The pointwise losses on CUDA against the same losses on the CPU. They need a CUDA device, or the emulated driver in
//! `tests/emulated-driver`.

mod agreement;
mod edges;
#[path = "../cuda_support/own_process.rs"]
mod own_process;
mod second_derivative;
mod support;
