//! Trains LeNet-5 on Fashion-MNIST and checks the training against a recorded PyTorch run: the one crate that knows the
//! model, the data and the losses.
//!
//! The binary of the same name is a thin shell around [`cli::run`]. A reader who wants the training loop starts at
//! [`training`], one who wants the optimizer at [`optimizer`].
#![deny(missing_docs)]

pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod dataset;
pub mod device;
pub mod environment;
pub mod errors;
mod files;
mod interrupt;
mod logging;
pub mod metrics;
pub mod optimizer;
mod preprocess;
pub mod run_dir;
pub mod threads;
pub mod training;
pub mod trajectory;
