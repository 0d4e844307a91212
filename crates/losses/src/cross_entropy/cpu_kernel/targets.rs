//! Class indices of any integer type: checked and counted once, then read a block of rows at a time.

use std::ops::Range;

use candle_core::{CpuStorage, DType, Error, Layout, Result};
use candle_simd::parallel;

use super::layout::Rows;
use crate::cross_entropy::error::TargetOutOfRange;

/// Rows whose targets are read together.
pub(super) const BLOCK: usize = 64;

/// A row that is not counted.
pub(super) const IGNORED: i64 = -1;

/// Class indices in the memory of a tensor.
#[derive(Clone, Debug)]
pub(in crate::cross_entropy) struct Indices<'a> {
    data: Data<'a>,
    rows: Rows,
    ignore: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
enum Data<'a> {
    U8(&'a [u8]),
    U32(&'a [u32]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
}

impl<'a> Indices<'a> {
    pub(in crate::cross_entropy) fn new(
        storage: &'a CpuStorage,
        layout: &Layout,
        ignore: Option<i64>,
    ) -> Result<Self> {
        let data = match storage {
            CpuStorage::U8(data) => Data::U8(data),
            CpuStorage::U32(data) => Data::U32(data),
            CpuStorage::I16(data) => Data::I16(data),
            CpuStorage::I32(data) => Data::I32(data),
            CpuStorage::I64(data) => Data::I64(data),
            _ => {
                return Err(Error::UnexpectedDType {
                    msg: "targets of cross entropy",
                    expected: DType::U32,
                    got: candle_core::backend::BackendStorage::dtype(storage),
                });
            }
        };
        Ok(Self {
            data,
            rows: Rows::of_row_tensor(layout),
            ignore,
        })
    }

    /// The targets of at most [`BLOCK`] rows, with [`IGNORED`] for those that do not count.
    #[inline(always)]
    pub(super) fn read(&self, rows: Range<usize>, out: &mut [i64; BLOCK]) {
        self.read_raw(rows.clone(), out);
        if let Some(ignore) = self.ignore {
            for target in &mut out[..rows.len()] {
                *target = if *target == ignore { IGNORED } else { *target };
            }
        }
    }

    #[inline(always)]
    fn read_raw(&self, rows: Range<usize>, out: &mut [i64; BLOCK]) {
        match self.data {
            Data::U8(data) => self.copy(data, rows, out),
            Data::U32(data) => self.copy(data, rows, out),
            Data::I16(data) => self.copy(data, rows, out),
            Data::I32(data) => self.copy(data, rows, out),
            Data::I64(data) => self.copy(data, rows, out),
        }
    }

    #[inline(always)]
    fn copy<T: Copy + Into<i64>>(&self, data: &[T], rows: Range<usize>, out: &mut [i64; BLOCK]) {
        if self.rows.stride() == Some(1) {
            let first = self.rows.offset(rows.start);
            for (target, &value) in out.iter_mut().zip(&data[first..first + rows.len()]) {
                *target = value.into();
            }
        } else {
            for (target, row) in out.iter_mut().zip(rows) {
                *target = data[self.rows.offset(row)].into();
            }
        }
    }

    /// The sum of the weights of the rows that count, each 1 without `weights`.
    ///
    /// # Errors
    /// The first target in row order that is neither a class nor ignored.
    pub(super) fn total_weight(
        &self,
        rows: usize,
        classes: usize,
        weights: Option<&[f64]>,
    ) -> Result<f64> {
        let chunks =
            parallel::map_rows(rows, 4, |chunk| self.chunk_weight(chunk, classes, weights));
        chunks
            .into_iter()
            .try_fold(0.0, |sum, chunk| Ok(sum + chunk?))
    }

    fn chunk_weight(
        &self,
        chunk: Range<usize>,
        classes: usize,
        weights: Option<&[f64]>,
    ) -> std::result::Result<f64, TargetOutOfRange> {
        let mut block = [0; BLOCK];
        let mut sum = 0.0;
        for start in chunk.clone().step_by(BLOCK) {
            let rows = start..chunk.end.min(start + BLOCK);
            self.read_raw(rows.clone(), &mut block);
            let targets = &block[..rows.len()];
            let is_class = |t: i64| u64::try_from(t).is_ok_and(|t| t < classes as u64);
            let counts = |t: i64| Some(t) != self.ignore;
            if !targets.iter().all(|&t| is_class(t) | !counts(t)) {
                let wrong = targets
                    .iter()
                    .position(|&t| !is_class(t) && counts(t))
                    .unwrap_or_default();
                return Err(TargetOutOfRange {
                    row: rows.start + wrong,
                    value: targets[wrong],
                    classes,
                });
            }
            sum += match weights {
                None => targets.iter().filter(|&&t| counts(t)).count() as f64,
                Some(weights) => targets
                    .iter()
                    .filter(|&&t| counts(t))
                    .map(|&t| weights[t as usize])
                    .sum::<f64>(),
            };
        }
        Ok(sum)
    }
}
