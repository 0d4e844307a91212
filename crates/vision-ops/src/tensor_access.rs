//! Reading a tensor's elements as a slice, and the checks that every op makes on its arguments.

use candle_core::{CpuStorage, DType, Error, Layout, Result, Storage, Tensor, WithDType};

use crate::VisionOpError;

/// Calls `f` with the elements of `tensor` in row-major order. Copies only when the layout is not contiguous.
pub(crate) fn with_contiguous<T: WithDType, R>(
    tensor: &Tensor,
    f: impl FnOnce(&[T]) -> R,
) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    Ok(f(cpu_slice(&storage, layout)?))
}

/// The elements of a contiguous storage that is the CPU's.
pub(crate) fn cpu_slice<'a, T: WithDType>(
    storage: &'a Storage,
    layout: &Layout,
) -> Result<&'a [T]> {
    match storage {
        Storage::Cpu(storage) => contiguous_slice(storage, layout),
        other => Err(Error::Msg(format!(
            "expected a tensor on the CPU, got one on {:?}",
            other.device().location()
        ))),
    }
}

/// The elements of a contiguous CPU storage.
pub(crate) fn contiguous_slice<'a, T: WithDType>(
    storage: &'a CpuStorage,
    layout: &Layout,
) -> Result<&'a [T]> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| Error::Msg(format!("expected a contiguous layout, got {layout:?}")))?;
    Ok(&storage.as_slice::<T>()?[start..end])
}

/// The four dimensions of an image tensor.
pub(crate) fn dims4(
    op: &'static str,
    argument: &'static str,
    layout: &'static str,
    tensor: &Tensor,
) -> Result<(usize, usize, usize, usize)> {
    match *tensor.dims() {
        [a, b, c, d] => Ok((a, b, c, d)),
        _ => Err(VisionOpError::Rank {
            op,
            argument,
            expected: 4,
            layout,
            got: tensor.dims().to_vec(),
        }
        .into()),
    }
}

/// Refuses dtypes outside `accepted`.
pub(crate) fn check_dtype(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
    accepted: &[DType],
) -> Result<()> {
    if accepted.contains(&tensor.dtype()) {
        return Ok(());
    }
    let names: Vec<&str> = accepted.iter().map(|dtype| dtype.as_str()).collect();
    Err(VisionOpError::DType {
        op,
        argument,
        expected: names.join(", "),
        got: tensor.dtype(),
    }
    .into())
}

/// Refuses a tensor that is not of the dtype and device of the reference argument.
pub(crate) fn check_companion(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
    reference_name: &'static str,
    reference: &Tensor,
) -> Result<()> {
    check_dtype(op, argument, tensor, &[reference.dtype()])?;
    if tensor.device().location() == reference.device().location() {
        return Ok(());
    }
    Err(VisionOpError::Device {
        op,
        argument,
        reference: reference_name,
        expected: format!("{:?}", reference.device().location()),
        got: format!("{:?}", tensor.device().location()),
    }
    .into())
}

/// Refuses a pair (rows, columns) with a zero in it.
pub(crate) fn check_positive(
    op: &'static str,
    argument: &'static str,
    pair: (usize, usize),
) -> Result<()> {
    if pair.0 > 0 && pair.1 > 0 {
        return Ok(());
    }
    Err(VisionOpError::Parameter {
        op,
        argument,
        expected: "at least 1 in both directions".into(),
        got: format!("{pair:?}"),
    }
    .into())
}
