//! Negative log-likelihood on CUDA against the CPU. They need a CUDA device, or the emulated driver in `tests/emulated-driver`.

mod agreement;
mod edges;
mod second_derivative;
mod support;
mod targets;
