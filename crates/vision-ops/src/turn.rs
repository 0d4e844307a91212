//! Transposition of a matrix in memory.

use candle_simd::{Float, Isa};

/// Writes `to[j * to_stride + i] = from[i * from_stride + j]` for i below `rows` and j below `columns`.
pub(crate) fn turn<F: Float>(
    _isa: Isa,
    from: &[F],
    rows: usize,
    columns: usize,
    from_stride: usize,
    to: &mut [F],
    to_stride: usize,
) {
    // Blocks keep the lines that are written in the first-level cache.
    const BLOCK: usize = 16;
    for i0 in (0..rows).step_by(BLOCK) {
        for j in 0..columns {
            let line = &mut to[j * to_stride + i0..][..BLOCK.min(rows - i0)];
            for (k, to) in line.iter_mut().enumerate() {
                *to = from[(i0 + k) * from_stride + j];
            }
        }
    }
}
