//! Transposition of a matrix in memory, block by block in registers.

use candle_simd::{Float, Isa, Kernel, Simd, Vector};

/// Writes `to[j * to_stride + i] = from[i * from_stride + j]` for i below `rows` and j below `columns`.
///
/// # Panics
/// When a slice is shorter than its rows say.
pub(crate) fn turn<F: Float>(
    isa: Isa,
    (rows, columns): (usize, usize),
    (from, from_stride): (&[F], usize),
    (to, to_stride): (&mut [F], usize),
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

struct Turn<'a, F> {
    rows: usize,
    columns: usize,
    from: &'a [F],
    from_stride: usize,
    to: &'a mut [F],
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
                    self.to[j * self.to_stride + i] = self.from[i * self.from_stride + j];
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
                // SAFETY: the whole block lies inside the matrix, whose bounds `turn` checked; the slices are distinct
                // borrows, so they do not overlap.
                unsafe {
                    let from = self.from.as_ptr().add(i * self.from_stride + j);
                    let to = self.to.as_mut_ptr().add(j * self.to_stride + i);
                    F::V::<S>::transpose_ptr(s, from, self.from_stride, to, self.to_stride);
                }
            }
        }
    }
}
