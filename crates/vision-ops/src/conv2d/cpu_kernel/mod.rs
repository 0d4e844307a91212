//! Convolution on the CPU. Forward takes the products as they stand; backward takes fewer where that pays.

mod direct;
mod row_pairs;
#[cfg(test)]
mod tests;

use std::mem::MaybeUninit;
use std::ops::Range;

use candle_simd::Isa;
use candle_simd::buffer::Uninit;
use candle_simd::parallel::Disjoint;
use rayon::prelude::*;

use super::Conv2dGeometry;
use crate::element::Element;
use crate::kernels::lanes::lanes;
use crate::kernels::partial_sums::add_in_order;
use crate::kernels::scratch::Scratch;
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

/// One result after another, for each image its `len` elements, which `f` writes.
///
/// # Safety
/// `f` writes all elements that it is given.
unsafe fn by_image<F: Element>(
    geometry: &Conv2dGeometry,
    len: usize,
    f: impl Fn(usize, &mut [MaybeUninit<F>]) + Sync + Send,
) -> Vec<F> {
    let all = geometry.batch * len;
    let mut results = Uninit::<F>::new(all);
    let parts = Disjoint::new(&mut results.as_uninit()[..all]);
    for_each(geometry.batch, multiply_adds(geometry), |n| {
        // SAFETY: every image writes its own part.
        f(n, unsafe { parts.part(n * len..(n + 1) * len) });
    });
    // SAFETY: every image was computed, and the caller vouches that each writes all of its elements.
    unsafe { results.assume_init(all) }
}

/// Sums over all images: `len` numbers for the weights, and one for each output channel.
///
/// Chunks of images, cut by the sizes alone, add to sums of their own, which are then added in order, so that the result is the
/// same for any number of threads.
fn sum_by_chunks<F: Element>(
    geometry: &Conv2dGeometry,
    len: usize,
    add: impl Fn(Range<usize>, &mut [F], &mut [F]) + Sync + Send,
) -> (Vec<F>, Vec<F>) {
    let size = geometry.gradient_chunk();
    let chunks = geometry.batch.div_ceil(size);
    let stride = len + geometry.out_channels;
    let mut partial = Scratch::zeroed(chunks * stride);
    let parts = Disjoint::new(&mut partial);
    for_each(chunks, multiply_adds(geometry), |chunk| {
        // SAFETY: every chunk writes its own part.
        let part = unsafe { parts.part(chunk * stride..(chunk + 1) * stride) };
        let (weight, bias) = part.split_at_mut(len);
        let images = chunk * size..geometry.batch.min((chunk + 1) * size);
        add(images, weight, bias);
    });
    let mut weight = add_in_order(&partial, stride);
    let bias = weight.split_off(len);
    (weight, bias)
}

/// Whether vectors that end with each of `rows` rows of `columns` are no more than those of `positions` in one run; they need
/// no copy of the result. Single vectors must be whole as well: rows of them go together, and cost most where they are masked.
fn rows_fill_vectors(lanes: usize, (rows, columns): (usize, usize), positions: usize) -> bool {
    row_suits_vectors(lanes, columns) && rows * columns.div_ceil(lanes) <= positions.div_ceil(lanes)
}

/// Whether a row takes several vectors, or one that is whole.
fn row_suits_vectors(lanes: usize, columns: usize) -> bool {
    columns >= lanes
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
