//! `--device auto|cpu|cuda[:N]`.

use std::str::FromStr;

use candle_core::{Device, DeviceLocation};

use crate::errors::{Result, TrainerError};

/// The device that the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// A GPU where this build and this machine have one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of that ordinal.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|ordinal| ordinal.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| "expected auto, cpu, cuda or cuda:N with a number N".to_string()),
        }
    }
}

impl DeviceChoice {
    /// Opens the device.
    ///
    /// # Errors
    /// When CUDA is asked for by name and this build or this machine does not have it.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(ordinal) => cuda(ordinal).map_err(|reason| {
                TrainerError::Run(format!(
                    "--device cuda:{ordinal}: {reason}; use --device cpu or --device auto"
                ))
            }),
            Self::Auto => Ok(cuda(0).unwrap_or_else(|reason| {
                // Whoever built with CUDA wanted it, and is told aloud.
                if candle_core::utils::cuda_is_available() {
                    tracing::warn!("--device auto takes the CPU: {reason}");
                } else {
                    tracing::debug!("--device auto takes the CPU: {reason}");
                }
                Device::Cpu
            })),
        }
    }
}

fn cuda(ordinal: usize) -> std::result::Result<Device, String> {
    if !candle_core::utils::cuda_is_available() {
        return Err("this program was built without the feature `cuda`".to_string());
    }
    Device::new_cuda(ordinal).map_err(|error| TrainerError::from(error).message())
}

/// The device as the command line spells it.
pub fn name(device: &Device) -> String {
    match device.location() {
        DeviceLocation::Cpu => "cpu".to_string(),
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_understood_and_others_are_not() {
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        assert_eq!("cpu".parse(), Ok(DeviceChoice::Cpu));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU"] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn auto_always_finds_a_device() {
        assert!(DeviceChoice::Auto.open().is_ok());
    }
}
