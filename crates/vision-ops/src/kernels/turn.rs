//! Transposition of a matrix in memory, block by block in registers.

use std::mem::MaybeUninit;

use candle_simd::buffer::Uninit;
use candle_simd::{Float, Isa, Kernel, Simd, Vector};

use super::lanes::lanes;
use super::scratch::{aligned_start, slack};

/// Writes `to[j * to_stride + i] = from[i * from_stride + j]` for i below `rows` and j below `columns`.
///
/// # Panics
/// When a slice is shorter than its rows say.
pub(crate) fn turn<F: Float>(
    isa: Isa,
    size: (usize, usize),
    from: (&[F], usize),
    (to, to_stride): (&mut [F], usize),
) {
    // SAFETY: the same memory, to which nothing but elements is written.
    let to = unsafe { std::slice::from_raw_parts_mut(to.as_mut_ptr().cast(), to.len()) };
    turn_into(isa, size, from, (to, to_stride));
}

/// The turned matrix in memory of its own. It is for a matrix that is large and read for a moment: its memory goes back to the
/// allocator, and what is allocated next finds it in the cache, where a buffer that waits for the next call takes up room.
pub(crate) struct Turned<F> {
    memory: Vec<F>,
    start: usize,
    stride: usize,
}

impl<F: Float> Turned<F> {
    /// Turns a matrix of `rows` and `columns`. The rows of the result are whole vectors on cache lines, so that none straddles two.
    pub(crate) fn new(isa: Isa, (rows, columns): (usize, usize), from: (&[F], usize)) -> Self {
        let stride = rows.next_multiple_of(lanes::<F>(isa));
        let len = columns * stride + slack::<F>();
        let mut memory = Uninit::<F>::new(len);
        let to = &mut memory.as_uninit()[..len];
        let start = aligned_start(to.as_ptr());
        let (before, turned) = to.split_at_mut(start);
        let (turned, behind) = turned.split_at_mut(columns * stride);
        isa.dispatch(ZeroEnds {
            rows: &mut *turned,
            stride,
        });
        turn_into(isa, (rows, columns), from, (turned, stride));
        for element in before.iter_mut().chain(behind) {
            element.write(F::ZERO);
        }
        Self {
            // SAFETY: turning wrote the first `rows` elements of each row; less than a vector follows them, of which all were
            // written before. The loop wrote what lies outside of rows.
            memory: unsafe { memory.assume_init(len) },
            start,
            stride,
        }
    }

    /// `columns` rows, [`Self::stride`] apart.
    pub(crate) fn elements(&self) -> &[F] {
        &self.memory[self.start..]
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }
}

fn turn_into<F: Float>(
    isa: Isa,
    (rows, columns): (usize, usize),
    (from, from_stride): (&[F], usize),
    (to, to_stride): (&mut [MaybeUninit<F>], usize),
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(from_stride >= columns && (rows - 1) * from_stride + columns <= from.len());
    assert!(to_stride >= rows && (columns - 1) * to_stride + rows <= to.len());
    isa.dispatch(Turn {
        rows,
        columns,
        from,
        from_stride,
        to,
        to_stride,
    });
}

/// Writes zeros to the last vector of each row.
struct ZeroEnds<'a, F> {
    rows: &'a mut [MaybeUninit<F>],
    /// Whole vectors.
    stride: usize,
}

impl<F: Float> Kernel for ZeroEnds<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let lanes = F::V::<S>::LANES;
        let zero = F::V::<S>::splat(s, F::ZERO);
        for row in self.rows.chunks_exact_mut(self.stride.max(lanes)) {
            let end = &mut row[self.stride - lanes..];
            // SAFETY: the slice starts a vector before the end of the row.
            unsafe { zero.store_ptr(end.as_mut_ptr().cast()) };
        }
    }
}

struct Turn<'a, F> {
    rows: usize,
    columns: usize,
    from: &'a [F],
    from_stride: usize,
    to: &'a mut [MaybeUninit<F>],
    to_stride: usize,
}

impl<F: Float> Kernel for Turn<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let lanes = F::V::<S>::LANES;
        if self.rows < lanes || self.columns < lanes {
            for j in 0..self.columns {
                for i in 0..self.rows {
                    self.to[j * self.to_stride + i].write(self.from[i * self.from_stride + j]);
                }
            }
            return;
        }
        // The last block of a row or column overlaps the one before it. Blocks that share cache lines, on both sides, follow one
        // another: written lines below one another, read lines a row of blocks apart.
        for j in (0..self.columns).step_by(lanes) {
            let j = j.min(self.columns - lanes);
            for i in (0..self.rows).step_by(lanes) {
                let i = i.min(self.rows - lanes);
                // SAFETY: the whole block lies inside the matrix, whose bounds `turn_into` checked; the slices are distinct
                // borrows, so they do not overlap.
                unsafe {
                    let from = self.from.as_ptr().add(i * self.from_stride + j);
                    let to = self.to.as_mut_ptr().cast::<F>().add(j * self.to_stride + i);
                    F::V::<S>::transpose_ptr(s, from, self.from_stride, to, self.to_stride);
                }
            }
        }
    }
}
