//! Cross entropy on CUDA against the CPU. They need a CUDA device, or the emulated driver in `tests/emulated-driver`.

mod agreement;
mod edges;
mod outputs;
mod properties;
mod second_derivative;
mod support;
mod targets;
