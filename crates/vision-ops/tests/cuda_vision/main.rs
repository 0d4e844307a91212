//! The ops on CUDA against the same ops on the CPU. They need a CUDA device, or the emulated driver in `tests/emulated-driver`.

mod convolution;
mod dense;
mod fused;
mod gradients;
mod pooling;
mod sequence;
mod support;
