//! Convolution on the CPU. Forward takes the products as they stand; backward takes fewer where that pays.

mod direct;
mod row_pairs;
#[cfg(test)]
mod tests;

use candle_simd::Isa;
use rayon::prelude::*;

use super::Conv2dGeometry;
use crate::element::Element;
use crate::kernels::lanes::lanes;
use crate::layer_op::{Gradients, Wanted};
pub(crate) use direct::forward;

/// Multiply-adds from which a convolution goes to the thread pool: about 10 microseconds.
const PARALLEL_FROM: usize = 1 << 19;

/// The gradients that are wanted, each in the way that takes least time: [`row_pairs`] where it pays, else [`direct`].
pub(crate) fn backward<F: Element>(
    isa: Isa,
    geometry: &Conv2dGeometry,
    wanted: Wanted,
    x: &[F],
    weight: &[F],
    upstream: &[F],
) -> Gradients<F> {
    let of_input = || {
        if row_pairs::pays_for_input(geometry, lanes::<F>(isa)) {
            row_pairs::backward_input(isa, geometry, weight, upstream)
        } else {
            direct::backward_input(isa, geometry, weight, upstream)
        }
    };
    let of_weight = || {
        if row_pairs::pays_for_weight(geometry) {
            row_pairs::backward_weight(isa, geometry, x, upstream)
        } else {
            direct::backward_weight(isa, geometry, x, upstream)
        }
    };
    let x = wanted.x.then(of_input).unwrap_or_default();
    let (weight, bias) = (wanted.weight || wanted.bias)
        .then(of_weight)
        .unwrap_or_default();
    Gradients { x, weight, bias }
}

/// Runs `f` for every index below `count`, on the pool where the work is worth it.
fn for_each(count: usize, multiply_adds: usize, f: impl Fn(usize) + Sync + Send) {
    if multiply_adds < PARALLEL_FROM {
        (0..count).for_each(f);
    } else {
        (0..count).into_par_iter().for_each(f);
    }
}

/// Whether vectors that end with each of `rows` rows of `columns` are no more than those of `positions` in one run; they need
/// no copy of the result. Single vectors must be whole as well: rows of them go together, and cost most where they are masked.
fn rows_fill_vectors(lanes: usize, (rows, columns): (usize, usize), positions: usize) -> bool {
    let vectors = columns.div_ceil(lanes);
    (vectors > 1 || columns == lanes) && rows * vectors <= positions.div_ceil(lanes)
}

/// Multiply-adds of a direct convolution.
fn multiply_adds(geometry: &Conv2dGeometry) -> usize {
    geometry.batch * geometry.output_len() * geometry.taps()
}

/// Adds every position to `sum`, which holds a number for each channel of a position.
fn add_positions<F: Element>(sum: &mut [F], positions: &[F]) {
    for position in positions.chunks_exact(sum.len().max(1)) {
        for (sum, &value) in sum.iter_mut().zip(position) {
            *sum += value;
        }
    }
}
