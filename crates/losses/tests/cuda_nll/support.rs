//! One call on both devices, and numbers for it.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_losses::{Nll, Reduction};

/// The device under test. Made anew by each test, so that nothing outlives it.
pub(crate) fn cuda() -> Result<Device> {
    Device::new_cuda(0)
}

pub(crate) const DTYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];
pub(crate) const INDEX_TYPES: [DType; 5] =
    [DType::U8, DType::U32, DType::I16, DType::I32, DType::I64];
pub(crate) const REDUCTIONS: [Reduction; 3] = [Reduction::Mean, Reduction::Sum, Reduction::None];

/// A fixed stream of numbers in [0, 1).
pub(crate) fn uniform(len: usize, seed: u64) -> impl Iterator<Item = f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    })
}

/// Numbers in (-3, 3), on the CPU.
pub(crate) fn numbers(seed: u64, dims: &[usize], dtype: DType) -> Result<Tensor> {
    let values: Vec<f64> = uniform(dims.iter().product(), seed)
        .map(|u| 6.0 * u - 3.0)
        .collect();
    Tensor::from_vec(values, dims, &Device::Cpu)?.to_dtype(dtype)
}

pub(crate) fn class_axis(dims: &[usize]) -> usize {
    usize::from(dims.len() > 1)
}

/// The targets' shape for log-probabilities of these dims.
pub(crate) fn row_dims(dims: &[usize]) -> Vec<usize> {
    let mut rows = dims.to_vec();
    rows.remove(class_axis(dims));
    rows
}

/// A class for each row, on the CPU.
pub(crate) fn classes(seed: u64, dims: &[usize], dtype: DType) -> Result<Tensor> {
    let (classes, rows) = (dims[class_axis(dims)] as f64, row_dims(dims));
    let values: Vec<u32> = uniform(rows.iter().product(), seed)
        .map(|u| (u * classes) as u32)
        .collect();
    Tensor::from_vec(values, rows, &Device::Cpu)?.to_dtype(dtype)
}

/// Loss and gradient of log-probabilities that are seen through `view`, times an upstream gradient.
pub(crate) fn run(
    loss: &Nll,
    x: &Tensor,
    targets: &Tensor,
    view: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<[Tensor; 2]> {
    let x = Var::from_tensor(x)?;
    let loss = loss.forward(&view(&x)?, targets)?;
    let upstream = numbers(99, loss.dims(), loss.dtype())?.to_device(loss.device())?;
    // Candle's sum of a tensor without axes fails on CUDA: it uploads an empty list of them.
    let total = (&loss * upstream)?.flatten_all()?.sum(0)?;
    let gradients = total.backward()?;
    let gradient = gradients.get(&x).expect("x gets a gradient").clone();
    Ok([loss, gradient])
}

/// All numbers in f64, in row-major order.
pub(crate) fn values(x: &Tensor) -> Result<Vec<f64>> {
    let here = x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    here.flatten_all()?.to_vec1()
}

/// To some units in the last place of the type that the result is stored in.
#[track_caller]
pub(crate) fn assert_close(what: &str, found: &Tensor, wanted: &Tensor) -> Result<()> {
    let tolerance = match wanted.dtype() {
        DType::F64 => 1e-13,
        DType::F32 => 2e-6,
        DType::F16 => 1e-3,
        _ => 8e-3,
    };
    let kind = |t: &Tensor| (t.dims().to_vec(), t.dtype());
    assert_eq!(kind(found), kind(wanted), "{what}");
    for (i, (found, wanted)) in values(found)?.into_iter().zip(values(wanted)?).enumerate() {
        let close = found == wanted
            || (found.is_nan() && wanted.is_nan())
            || (found - wanted).abs() <= tolerance * (1.0 + wanted.abs());
        assert!(close, "{what}: element {i} is {found:e}, not {wanted:e}");
    }
    Ok(())
}
