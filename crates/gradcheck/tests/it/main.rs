//! The integration tests of the gradient checker: planted bugs are caught, right gradients and kinks are not called bugs.

// `&[x.clone()]` reads like the calls with several inputs around it.
#![allow(clippy::cloned_ref_to_slice_refs)]

mod bad_input;
mod functions;
mod kinks;
mod max_pool;
mod planted;
mod precision;
mod protocol;
mod report;
mod second_order;

use candle_core::{CpuStorage, DType, Device, Layout, Result, Tensor};

/// Irregular values in (-1.5, 1.5), the same in every run, no two alike and none near zero.
fn values(dims: &[usize], dtype: DType) -> Result<Tensor> {
    let count: usize = dims.iter().product();
    let value = |i: usize| {
        let wave = (0.7 + 1.37 * i as f64).sin() + 0.4 * (0.31 * i as f64).cos();
        wave + 0.05_f64.copysign(wave)
    };
    let values: Vec<f64> = (0..count).map(value).collect();
    Tensor::from_vec(values, dims, &Device::Cpu)?.to_dtype(dtype)
}

/// The elements of an f64 argument of a custom op, in row-major order.
fn elements(storage: &CpuStorage, layout: &Layout) -> Result<Vec<f64>> {
    let CpuStorage::F64(data) = storage else {
        candle_core::bail!("x: expected f64")
    };
    let (dims, strides) = (layout.dims(), layout.stride());
    let at = |flat: usize| {
        let (mut rest, mut offset) = (flat, layout.start_offset());
        for (size, stride) in dims.iter().zip(strides).rev() {
            offset += rest % size * stride;
            rest /= size;
        }
        offset
    };
    Ok((0..layout.shape().elem_count())
        .map(|flat| data[at(flat)])
        .collect())
}
