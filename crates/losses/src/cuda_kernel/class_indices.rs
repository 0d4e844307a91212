//! Class indices on the device: their memory under one type, and single ones of them on the host.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::cuda_backend::{CudaDType, CudaStorageSlice as Slice};
use candle_core::{CudaStorage, Error, Layout, Result};

use super::{Argument, Memory};

/// The memory of class indices, from the first of the tensor on; `class_indices.cuh` is the counterpart.
pub(crate) struct ClassIndices<'a> {
    memory: Box<dyn Memory + 'a>,
    code: u32,
}

impl<'a> ClassIndices<'a> {
    /// None where the storage is of no integer type.
    pub(crate) fn new(storage: &'a CudaStorage, start: usize) -> Option<Self> {
        let (memory, code): (Box<dyn Memory + 'a>, u32) = match &storage.slice {
            Slice::U8(slice) => (Box::new(slice.slice(start..)), 0),
            Slice::U32(slice) => (Box::new(slice.slice(start..)), 1),
            Slice::I16(slice) => (Box::new(slice.slice(start..)), 2),
            Slice::I32(slice) => (Box::new(slice.slice(start..)), 3),
            Slice::I64(slice) => (Box::new(slice.slice(start..)), 4),
            _ => return None,
        };
        Some(Self { memory, code })
    }

    /// Targets of another kind, which a kernel takes in the place of indices.
    pub(crate) fn none(memory: impl Memory + 'a) -> Self {
        Self {
            memory: Box::new(memory),
            code: 5,
        }
    }

    pub(crate) fn memory(&self) -> Argument<'_> {
        Argument::Pointer(&*self.memory)
    }

    /// `IndexType` of the `.cuh`.
    pub(crate) fn code(&self) -> Argument<'static> {
        self.code.into()
    }
}

/// The index of a row, counted in row-major order. Waits for the device.
pub(crate) fn index_of_row(storage: &CudaStorage, layout: &Layout, row: usize) -> Result<i64> {
    let mut rest = row;
    let mut offset = layout.start_offset();
    for (dim, stride) in layout.dims().iter().zip(layout.stride()).rev() {
        offset += rest % dim * stride;
        rest /= dim;
    }
    match &storage.slice {
        Slice::U8(_) => read::<u8>(storage, offset),
        Slice::U32(_) => read::<u32>(storage, offset),
        Slice::I16(_) => read::<i16>(storage, offset),
        Slice::I32(_) => read::<i32>(storage, offset),
        Slice::I64(_) => read::<i64>(storage, offset),
        _ => Err(Error::UnsupportedDTypeForOp(storage.dtype(), "class indices").bt()),
    }
}

fn read<T: CudaDType + DeviceRepr + Copy + Into<i64>>(
    storage: &CudaStorage,
    offset: usize,
) -> Result<i64> {
    let slice = storage.as_cuda_slice::<T>()?.slice(offset..offset + 1);
    Ok(storage.device.clone_dtoh(&slice)?[0].into())
}
