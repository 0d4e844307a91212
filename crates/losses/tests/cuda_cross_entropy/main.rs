//! Cross entropy on CUDA against the CPU. They need a CUDA device, or the emulated driver in `tests/emulated-driver`.

mod agreement;
mod edges;
#[path = "../cuda_support/empty.rs"]
mod empty;
mod outputs;
#[path = "../cuda_support/own_process.rs"]
mod own_process;
mod properties;
mod second_derivative;
mod support;
mod targets;
