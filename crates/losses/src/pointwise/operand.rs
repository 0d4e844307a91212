//! Reading a tensor of any layout and float dtype in blocks of consecutive elements.

use super::Float;
use super::cpu_kernel::{Block, Compiled, Partial};
use candle_core::{CpuStorage, Layout, Result, bail};
use candle_simd::Isa;

/// Elements handled at a time. All operands of a block fit in the first-level cache, and the blocks, not the threads,
/// decide in which order a sum is taken.
pub(super) const BLOCK: usize = 512;

/// The type that arithmetic is done in: f32 for f32, f16 and bf16, f64 for f64.
pub(super) trait Real: Float {
    /// The elements themselves, where they are stored in this type.
    fn stored(storage: &CpuStorage) -> Option<&[Self]>;
    fn from_f32(value: f32) -> Self;
    fn to_f64(self) -> f64;
    /// Wraps a loss.
    fn storage(values: Vec<Self>) -> CpuStorage;
    /// The formulas as they are compiled for this type.
    fn evaluate(element: &dyn Compiled, isa: Isa, partial: Partial, block: Block<'_, Self>);
}

impl Real for f32 {
    fn stored(storage: &CpuStorage) -> Option<&[Self]> {
        match storage {
            CpuStorage::F32(values) => Some(values),
            _ => None,
        }
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn storage(values: Vec<Self>) -> CpuStorage {
        CpuStorage::F32(values)
    }
    fn evaluate(element: &dyn Compiled, isa: Isa, partial: Partial, block: Block<'_, Self>) {
        element.evaluate_f32(isa, partial, block);
    }
}

impl Real for f64 {
    fn stored(storage: &CpuStorage) -> Option<&[Self]> {
        match storage {
            CpuStorage::F64(values) => Some(values),
            _ => None,
        }
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        f64::from(value)
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    fn storage(values: Vec<Self>) -> CpuStorage {
        CpuStorage::F64(values)
    }
    fn evaluate(element: &dyn Compiled, isa: Isa, partial: Partial, block: Block<'_, Self>) {
        element.evaluate_f64(isa, partial, block);
    }
}

/// A tensor's elements in row-major order, whatever its strides and offset.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    storage: &'a CpuStorage,
    layout: &'a Layout,
    /// Start in the storage, where the elements lie there one after the other.
    contiguous: Option<usize>,
}

impl<'a> Operand<'a> {
    pub(super) fn new(storage: &'a CpuStorage, layout: &'a Layout) -> Self {
        Self {
            storage,
            layout,
            contiguous: layout.contiguous_offsets().map(|(start, _)| start),
        }
    }

    /// The one value of a tensor whose elements all are the same one.
    pub(super) fn scalar(&self) -> Result<Option<f64>> {
        let one = self.layout.shape().elem_count() > 0
            && (self.layout.dims().iter().zip(self.layout.stride()))
                .all(|(&dim, &stride)| dim == 1 || stride == 0);
        if !one {
            return Ok(None);
        }
        let at = self.layout.start_offset();
        Ok(Some(match self.storage {
            CpuStorage::F32(values) => f64::from(values[at]),
            CpuStorage::F64(values) => values[at],
            CpuStorage::F16(values) => values[at].to_f64(),
            CpuStorage::BF16(values) => values[at].to_f64(),
            other => bail!(
                "a pointwise loss reads float tensors, got storage {:?}",
                storage_dtype(other)
            ),
        }))
    }

    /// Elements `start..start + scratch.len()`: borrowed where they lie together in the right type, else gathered
    /// and converted into `scratch`.
    #[inline(always)]
    pub(super) fn block<'s, F: Real>(&'s self, start: usize, scratch: &'s mut [F]) -> &'s [F] {
        if let (Some(offset), Some(values)) = (self.contiguous, F::stored(self.storage)) {
            return &values[offset + start..][..scratch.len()];
        }
        match self.storage {
            CpuStorage::F32(values) => self.gather(values, start, scratch, |v| F::from_f32(v)),
            CpuStorage::F64(values) => self.gather(values, start, scratch, |v| F::of(v)),
            CpuStorage::F16(values) => {
                self.gather(values, start, scratch, |v| F::from_f32(v.to_f32()))
            }
            CpuStorage::BF16(values) => {
                self.gather(values, start, scratch, |v| F::from_f32(v.to_f32()))
            }
            // Dtypes are checked before any work; NaN shows a caller that did not.
            _ => scratch.fill(F::of(f64::NAN)),
        }
        scratch
    }

    /// Walks along the last axis, run by run.
    #[inline(always)]
    fn gather<T: Copy, F: Real>(
        &self,
        values: &[T],
        start: usize,
        scratch: &mut [F],
        convert: impl Fn(T) -> F,
    ) {
        if let Some(offset) = self.contiguous {
            let run = &values[offset + start..][..scratch.len()];
            for (to, &from) in scratch.iter_mut().zip(run) {
                *to = convert(from);
            }
            return;
        }
        // A tensor of rank 0 is contiguous, so there is a last axis.
        let (dims, strides) = (self.layout.dims(), self.layout.stride());
        let last = dims.len() - 1;
        let mut done = 0;
        while done < scratch.len() {
            let index = start + done;
            let column = index % dims[last];
            let mut rest = index / dims[last];
            let mut at = self.layout.start_offset() + column * strides[last];
            for axis in (0..last).rev() {
                at += (rest % dims[axis]) * strides[axis];
                rest /= dims[axis];
            }
            let run = (dims[last] - column).min(scratch.len() - done);
            for to in &mut scratch[done..done + run] {
                *to = convert(values[at]);
                at += strides[last];
            }
            done += run;
        }
    }
}

fn storage_dtype(storage: &CpuStorage) -> candle_core::DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}
