//! Options that several commands take, and the parsers of their values.

use std::path::PathBuf;

use candle_core::Device;
use clap::Args;

use crate::dataset::{self, Dataset};
use crate::device::DeviceChoice;
use crate::errors::Result;
use crate::threads;

/// Where to compute.
#[derive(Args, Clone, Debug)]
pub(super) struct ComputeArgs {
    /// auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(super) device: DeviceChoice,
    /// Threads of the CPU pool; the results do not depend on it [default: the cores]
    #[arg(long, value_name = "N", value_parser = thread_count, allow_negative_numbers = true)]
    pub(super) threads: Option<usize>,
}

impl ComputeArgs {
    /// Starts the pool and opens the device; returns the number of threads beside it.
    pub(super) fn open(&self) -> Result<(Device, usize)> {
        let threads = threads::init(self.threads)?;
        Ok((self.device.open()?, threads))
    }
}

/// Where the data set is.
#[derive(Args, Clone, Debug)]
pub(super) struct DataFolder {
    /// Folder of the data set [default: $FASHION_MNIST_DIR, ./data/fashion-mnist and the usual places; else fetched]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
}

/// The data set to learn from or to measure by.
#[derive(Args, Clone, Debug)]
pub(super) struct DatasetArgs {
    #[command(flatten)]
    folder: DataFolder,
    /// Take what is in --data without comparing checksums: any set in Fashion-MNIST's form, of any number of images
    #[arg(long, requires = "data")]
    unverified: bool,
}

impl DatasetArgs {
    /// Finds and loads it.
    pub(super) fn open(&self) -> Result<Dataset> {
        match (&self.folder.data, self.unverified) {
            (Some(folder), true) => dataset::open_unverified(folder),
            (folder, _) => dataset::open(folder.as_deref()),
        }
    }
}

fn thread_count(text: &str) -> std::result::Result<usize, String> {
    let most = threads::MAX_THREADS;
    match text.parse() {
        Ok(n) if (1..=most).contains(&n) => Ok(n),
        _ => Err(format!("expected a whole number from 1 to {most}")),
    }
}

/// A whole number from 1 up.
pub(super) fn positive(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(n) if n >= 1 => Ok(n),
        _ => Err("expected a whole number from 1 up".into()),
    }
}

/// A finite number above 0.
pub(super) fn learning_rate(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("expected a finite number above 0".into()),
    }
}

/// A number from 0 to 1.
pub(super) fn fraction(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 to 1".into()),
    }
}
