//! A pointwise loss that candle-losses does not know, with kernels of its own beside its formula in Rust.

use crate::compare::check;
use crate::ptx;
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_losses::pointwise::CudaKernels;
use candle_losses::{Float, Pointwise, PointwiseLoss, Reduction};

/// s ln cosh((x - t) / s); `kernels/log_cosh.cu` has the same formula.
struct LogCosh {
    s: f64,
}

impl Pointwise for LogCosh {
    fn value<F: Float>(&self, x: F, t: F) -> F {
        let d = ((x - t) / F::of(self.s)).abs();
        F::of(self.s) * (d + (F::of(-2.0) * d).exp().ln_1p() - F::of(std::f64::consts::LN_2))
    }

    fn cuda_kernels(&self) -> Option<CudaKernels> {
        Some(
            CudaKernels::new("emulated_app_log_cosh", ptx::LOG_COSH, "log_cosh")
                .constants([self.s]),
        )
    }
}

/// Loss and gradients of input and target, the target read from a transposed matrix.
fn loss_and_gradients(device: &Device, dtype: DType, reduction: Reduction) -> Result<[Tensor; 3]> {
    let matrix = |rows: usize, columns: usize, step: usize| {
        let values: Vec<_> = (0..rows * columns)
            .map(|i| (i * step % 1009) as f32 / 168.0 - 3.0)
            .collect();
        Tensor::from_vec(values, (rows, columns), &Device::Cpu)?
            .to_dtype(dtype)?
            .to_device(device)
    };
    let input = Var::from_tensor(&matrix(37, 29, 7919)?)?;
    let target = Var::from_tensor(&matrix(29, 37, 523)?)?;
    let loss = PointwiseLoss::new(LogCosh { s: 0.75 }).reduction(reduction);
    let loss = loss.forward(&input, &target.t()?)?;
    let gradients = loss.sqr()?.flatten_all()?.sum(0)?.backward()?;
    let of = |v: &Var| gradients.get(v).expect("a variable has a gradient").clone();
    Ok([loss, of(&input), of(&target)])
}

pub(crate) fn run(device: &Device) -> Result<()> {
    let tolerances = [
        (DType::F32, 2e-6),
        (DType::F64, 1e-12),
        (DType::F16, 2e-3),
        (DType::BF16, 1.6e-2),
    ];
    for (dtype, tolerance) in tolerances {
        for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
            let cpu = loss_and_gradients(&Device::Cpu, dtype, reduction)?;
            let cuda = loss_and_gradients(device, dtype, reduction)?;
            let parts = ["loss", "gradient", "target gradient"];
            for ((part, cpu), cuda) in parts.iter().zip(&cpu).zip(&cuda) {
                let name = format!("{} {reduction:?} {part}", dtype.as_str());
                check(&name, cpu, cuda, tolerance)?;
            }
        }
    }
    Ok(())
}
