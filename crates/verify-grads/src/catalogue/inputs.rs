//! The tensors that the cases check at: irregular, fixed, away from kinks.

use candle_core::{DType, Device, Result, Tensor};

/// Irregular values in (-1.5, 1.5), none within 0.05 of zero, another series for every `salt`.
pub(super) fn values(dims: &[usize], dtype: DType, salt: usize, device: &Device) -> Result<Tensor> {
    let count: usize = dims.iter().product();
    let value = |i: usize| {
        let i = (i + 1_009 * salt) as f64;
        let wave = (0.7 + 1.37 * i).sin() + 0.4 * (0.31 * i * 1.618).cos();
        wave + 0.05_f64.copysign(wave)
    };
    Tensor::from_vec((0..count).map(value).collect(), dims, device)?.to_dtype(dtype)
}

/// Values in (0.05, 1): class weights, and what else has to be positive.
pub(super) fn positive(
    dims: &[usize],
    dtype: DType,
    salt: usize,
    device: &Device,
) -> Result<Tensor> {
    let count: usize = dims.iter().product();
    let value = |i: usize| 0.525 + 0.475 * (0.9 + 2.11 * (i + 1_009 * salt) as f64).sin();
    Tensor::from_vec((0..count).map(value).collect(), dims, device)?.to_dtype(dtype)
}

/// Class indices in [0, classes) of every class, i64; with `ignored`, every third is that instead.
pub(super) fn targets(
    dims: &[usize],
    classes: usize,
    ignored: Option<i64>,
    device: &Device,
) -> Result<Tensor> {
    let count: usize = dims.iter().product();
    let target = |i: usize| match ignored {
        Some(index) if i % 3 == 1 => index,
        _ => ((i * 5 + 2) % classes) as i64,
    };
    Tensor::from_vec((0..count).map(target).collect(), dims, device)
}

/// `4x7` for `[4, 7]`.
pub(super) fn shape_name(dims: &[usize]) -> String {
    dims.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("x")
}
