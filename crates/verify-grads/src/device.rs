//! `--device auto|cpu|cuda[:N]`.

use candle_core::{Device, DeviceLocation};
use std::str::FromStr;

/// The device that the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// A GPU where this build and this machine have one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of that ordinal.
    Cuda(usize),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("expected auto, cpu, cuda or cuda:N, got '{text}'");
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let ordinal = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                ordinal.parse().map(Self::Cuda).map_err(|_| unknown())
            }
        }
    }
}

impl Choice {
    /// Opens the device.
    ///
    /// # Errors
    /// When a GPU is asked for and this build or this machine has none.
    pub fn open(self) -> candle_core::Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(ordinal) => Device::new_cuda(ordinal),
            // `Device::cuda_if_available` asks the build only and fails on a machine without a GPU.
            Self::Auto if candle_core::utils::cuda_is_available() => Ok(Device::new_cuda(0)
                .unwrap_or_else(|error| {
                    // Whoever built with CUDA wanted it: said aloud, and without the backtrace that Candle may append.
                    let reason = error.to_string();
                    let reason = reason.lines().next().unwrap_or_default();
                    tracing::warn!("--device auto takes the CPU: {reason}");
                    Device::Cpu
                })),
            Self::Auto => Ok(Device::Cpu),
        }
    }
}

/// The device as `--device` spells it.
#[must_use]
pub fn name(device: &Device) -> String {
    match device.location() {
        DeviceLocation::Cpu => "cpu".to_string(),
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::Choice;

    #[test]
    fn every_spelling_is_understood_and_others_are_refused() {
        assert_eq!("auto".parse(), Ok(Choice::Auto));
        assert_eq!("cpu".parse(), Ok(Choice::Cpu));
        assert_eq!("cuda".parse(), Ok(Choice::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(Choice::Cuda(3)));
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU"] {
            assert!(wrong.parse::<Choice>().is_err(), "{wrong}");
        }
    }
}
