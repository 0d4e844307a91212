//! Targets on the device: their memory under one type, and the error about one that is no class.

use candle_core::cuda_backend::{CudaDType, CudaStorageSlice};
use candle_core::{CudaStorage, Error, Result};

use super::rows::Rows;
use super::totals::Totals;
use crate::cross_entropy::error::TargetOutOfRange;
use crate::cross_entropy::plan::TargetKind;
use crate::cuda_kernel::{CudaElement, Memory};

/// Class indices or probabilities, from the first of the tensor on.
pub(super) struct Targets<'a> {
    pub(super) memory: Box<dyn Memory + 'a>,
    /// `TargetType` of the `.cu`.
    pub(super) code: u32,
}

impl<'a> Targets<'a> {
    pub(super) fn new(storage: &'a CudaStorage, start: usize) -> Result<Self> {
        use CudaStorageSlice as Slice;
        const PROBABILITIES: u32 = 5;
        let (memory, code): (Box<dyn Memory + 'a>, u32) = match &storage.slice {
            Slice::U8(slice) => (Box::new(slice.slice(start..)), 0),
            Slice::U32(slice) => (Box::new(slice.slice(start..)), 1),
            Slice::I16(slice) => (Box::new(slice.slice(start..)), 2),
            Slice::I32(slice) => (Box::new(slice.slice(start..)), 3),
            Slice::I64(slice) => (Box::new(slice.slice(start..)), 4),
            Slice::F32(slice) => (Box::new(slice.slice(start..)), PROBABILITIES),
            Slice::F64(slice) => (Box::new(slice.slice(start..)), PROBABILITIES),
            Slice::F16(slice) => (Box::new(slice.slice(start..)), PROBABILITIES),
            Slice::BF16(slice) => (Box::new(slice.slice(start..)), PROBABILITIES),
            _ => {
                let dtype = candle_core::backend::BackendStorage::dtype(storage);
                return Err(Error::UnsupportedDTypeForOp(dtype, "cross_entropy").bt());
            }
        };
        Ok(Self { memory, code })
    }
}

/// Waits for the device and refuses the first target that is no class, where that was asked for.
pub(super) fn validate<E: CudaElement>(rows: &Rows<'_, E>) -> Result<()> {
    let plan = rows.plan;
    if !plan.options.validate_targets || plan.kind == TargetKind::Probabilities {
        return Ok(());
    }
    let Some(row) = Totals::of(rows, None, None, None, None)?.first_invalid()? else {
        return Ok(());
    };
    let (storage, layout) = rows.target;
    // Row-major order of the rows is that of the targets.
    let mut rest = row;
    let mut offset = layout.start_offset();
    for (dim, stride) in layout.dims().iter().zip(layout.stride()).rev() {
        offset += rest % dim * stride;
        rest /= dim;
    }
    Err(TargetOutOfRange {
        row,
        value: index_at(storage, offset)?,
        classes: plan.geometry.classes,
    }
    .into())
}

fn index_at(storage: &CudaStorage, offset: usize) -> Result<i64> {
    fn read<
        T: CudaDType + candle_core::cuda_backend::cudarc::driver::DeviceRepr + Copy + Into<i64>,
    >(
        storage: &CudaStorage,
        offset: usize,
    ) -> Result<i64> {
        let slice = storage.as_cuda_slice::<T>()?.slice(offset..offset + 1);
        Ok(storage.device.clone_dtoh(&slice)?[0].into())
    }
    match &storage.slice {
        CudaStorageSlice::U8(_) => read::<u8>(storage, offset),
        CudaStorageSlice::U32(_) => read::<u32>(storage, offset),
        CudaStorageSlice::I16(_) => read::<i16>(storage, offset),
        CudaStorageSlice::I32(_) => read::<i32>(storage, offset),
        _ => read::<i64>(storage, offset),
    }
}
