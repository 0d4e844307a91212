//! A parallel loop over rows whose results do not depend on the number of threads.
//!
//! Rows are cut into chunks by the size of the problem alone, and results of chunks are handed back in order, so a sum
//! over them has one order for any number of threads. A small problem is one chunk and runs on the calling thread: a
//! hop into the pool costs several microseconds, more than a small loss takes.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

/// Elements in a chunk, about: 20 to 50 microseconds of work, many times the cost of handing it out.
const CHUNK_ELEMENTS: usize = 1 << 15;

/// Chunk starts are multiples of this many rows, so that kernels which take rows in lanes see whole vectors.
const ROW_ALIGNMENT: usize = 64;

/// The rows in a chunk for rows that each cost as much as `work` elements.
pub fn chunk_rows(work: usize) -> usize {
    match CHUNK_ELEMENTS / work.max(1) {
        0 => 1,
        rows if rows < ROW_ALIGNMENT => rows,
        rows => rows / ROW_ALIGNMENT * ROW_ALIGNMENT,
    }
}

/// Calls `f` with each chunk of `0..rows` and returns the results in the order of the chunks. `work` is what a row
/// costs, in elements.
pub fn map_rows<T: Send>(rows: usize, work: usize, f: impl Fn(Range<usize>) -> T + Sync) -> Vec<T> {
    let size = chunk_rows(work);
    let chunks = rows.div_ceil(size);
    let chunk = |i: usize| f(i * size..rows.min((i + 1) * size));
    if chunks <= 1 || rayon::current_num_threads() == 1 {
        (0..chunks).map(chunk).collect()
    } else {
        (0..chunks).into_par_iter().map(chunk).collect()
    }
}

/// Calls `f` with each chunk of `0..rows`. `work` is what a row costs, in elements.
pub fn for_rows(rows: usize, work: usize, f: impl Fn(Range<usize>) + Sync) {
    map_rows(rows, work, f);
}

/// A slice that several threads write at once, each its own part.
#[derive(Clone, Copy, Debug)]
pub struct Disjoint<'a, T> {
    data: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: the parts that threads take do not overlap, by the contract of `part`, so this is as `&mut [T]` split up.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}
// SAFETY: as above; a shared reference gives access through `part` only.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Wraps `data` for as long as it is borrowed.
    pub fn new(data: &'a mut [T]) -> Self {
        Self {
            data: data.as_mut_ptr(),
            len: data.len(),
            lifetime: PhantomData,
        }
    }

    /// Elements in the whole slice.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the slice holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The part `range`. Panics where it reaches past the end.
    ///
    /// # Safety
    /// No two parts in use at the same time overlap.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: the range lies in the borrowed slice, and the caller vouches that no other part overlaps it.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }
}
