//! Comparing a tensor of the device with the CPU's.

use candle_core::{DType, Device, Result, Tensor, bail};

/// The largest difference, relative where values are above 1. NaN in one and not in the other is infinite.
pub(crate) fn difference(cpu: &Tensor, cuda: &Tensor) -> Result<f64> {
    if cpu.shape() != cuda.shape() || cpu.dtype() != cuda.dtype() {
        bail!(
            "the CPU gives {:?} of {:?}, CUDA {:?} of {:?}",
            cpu.shape(),
            cpu.dtype(),
            cuda.shape(),
            cuda.dtype()
        );
    }
    let values = |tensor: &Tensor| -> Result<Vec<f64>> {
        tensor
            .to_device(&Device::Cpu)?
            .to_dtype(DType::F64)?
            .flatten_all()?
            .to_vec1()
    };
    let (cpu, cuda) = (values(cpu)?, values(cuda)?);
    let each = cpu
        .iter()
        .zip(&cuda)
        .map(|(a, b)| match (a.is_nan(), b.is_nan()) {
            (true, true) => 0.0,
            (false, false) if a == b => 0.0,
            (false, false) => (a - b).abs() / a.abs().max(1.0),
            _ => f64::INFINITY,
        });
    Ok(each.fold(0.0, f64::max))
}

/// Prints a line, and fails if the difference is above `tolerance`.
pub(crate) fn check(name: &str, cpu: &Tensor, cuda: &Tensor, tolerance: f64) -> Result<()> {
    let difference = difference(cpu, cuda)?;
    println!("{name:<28} differs by {difference:.1e}");
    if difference <= tolerance {
        Ok(())
    } else {
        bail!("{name}: CUDA differs from the CPU by {difference:e}, more than {tolerance:e}")
    }
}
