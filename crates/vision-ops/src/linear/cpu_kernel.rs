//! The three products of a dense layer. Each is cut into pieces of its result, and every element is one sum in one order,
//! so the bits do not depend on the number of threads.

use candle_simd::Isa;
use candle_simd::buffer::Uninit;
use candle_simd::parallel::Disjoint;
use rayon::prelude::*;

use super::Sizes;
use crate::element::Element;
use crate::kernels::product::{Columns, Product, Start, Target, Term};
use crate::kernels::turn::Turned;

/// Multiply-adds from which a product goes to the thread pool: about 15 microseconds.
const PARALLEL_FROM: usize = 1 << 20;

/// Rows of a piece: a multiple of the rows of a register block, and half of a usual batch.
const PIECE: usize = 64;

/// Rows of a piece of the weight gradient, whose depth is the batch.
const GRADIENT_PIECE: usize = 24;

/// Runs `f` for pieces of `0..count`, on the pool where the work is worth it.
fn for_pieces(
    count: usize,
    piece: usize,
    multiply_adds: usize,
    f: impl Fn(std::ops::Range<usize>) + Sync + Send,
) {
    let pieces = count.div_ceil(piece);
    let range = |i: usize| i * piece..count.min((i + 1) * piece);
    if multiply_adds < PARALLEL_FROM {
        (0..pieces).for_each(|i| f(range(i)));
    } else {
        (0..pieces).into_par_iter().for_each(|i| f(range(i)));
    }
}

fn multiples(count: usize, stride: usize) -> Vec<usize> {
    (0..count).map(|i| i * stride).collect()
}

/// The result, row-major.
pub(super) fn forward<F: Element>(
    isa: Isa,
    sizes: Sizes,
    x: &[F],
    weight: &[F],
    bias: Option<&[F]>,
    relu: bool,
) -> Vec<F> {
    let Sizes {
        rows,
        inputs,
        outputs,
    } = sizes;
    let mut y = Uninit::<F>::new(rows * outputs);
    let parts = Disjoint::new(&mut y.as_uninit()[..rows * outputs]);
    let turned = Turned::new(isa, (outputs, inputs), (weight, inputs));
    let terms = Term::multiples(inputs, 1, turned.stride());
    for_pieces(rows, PIECE, rows * inputs * outputs, |piece| {
        // SAFETY: the pieces do not overlap.
        let y = unsafe { parts.part(piece.start * outputs..piece.end * outputs) };
        Product {
            a: &x[piece.start * inputs..piece.end * inputs],
            a_rows: &multiples(piece.len(), inputs),
            b: turned.elements(),
            terms: &terms,
            columns: Columns::neighbours(outputs),
            c: Target::Fresh(y),
            c_stride: outputs,
            start: bias.map_or(Start::Zero, Start::ColumnBias),
            relu,
        }
        .run(isa);
    });
    // SAFETY: the pieces are all rows, and the product of each writes all columns.
    unsafe { y.assume_init(rows * outputs) }
}

/// The upstream gradient behind relu: 0 where the result is not positive. NaN counts as passed.
pub(super) fn through_relu<F: Element>(result: &[F], upstream: &[F], masked: &mut [F]) {
    for ((masked, &y), &upstream) in masked.iter_mut().zip(result).zip(upstream) {
        *masked = if y <= F::ZERO { F::ZERO } else { upstream };
    }
}

/// The gradient of `x`, row-major.
pub(super) fn backward_input<F: Element>(
    isa: Isa,
    sizes: Sizes,
    weight: &[F],
    upstream: &[F],
) -> Vec<F> {
    let Sizes {
        rows,
        inputs,
        outputs,
    } = sizes;
    let mut grad = Uninit::<F>::new(rows * inputs);
    let parts = Disjoint::new(&mut grad.as_uninit()[..rows * inputs]);
    let terms = Term::multiples(outputs, 1, inputs);
    for_pieces(rows, PIECE, rows * inputs * outputs, |piece| {
        // SAFETY: the pieces do not overlap.
        let grad = unsafe { parts.part(piece.start * inputs..piece.end * inputs) };
        Product {
            a: &upstream[piece.start * outputs..piece.end * outputs],
            a_rows: &multiples(piece.len(), outputs),
            b: weight,
            terms: &terms,
            columns: Columns::neighbours(inputs),
            c: Target::Fresh(grad),
            c_stride: inputs,
            start: Start::Zero,
            relu: false,
        }
        .run(isa);
    });
    // SAFETY: the pieces are all rows, and the product of each writes all columns.
    unsafe { grad.assume_init(rows * inputs) }
}

/// The gradient of `weight`, row-major.
pub(super) fn backward_weight<F: Element>(
    isa: Isa,
    sizes: Sizes,
    x: &[F],
    upstream: &[F],
) -> Vec<F> {
    let Sizes {
        rows,
        inputs,
        outputs,
    } = sizes;
    let mut grad = Uninit::<F>::new(outputs * inputs);
    let parts = Disjoint::new(&mut grad.as_uninit()[..outputs * inputs]);
    let terms = Term::multiples(rows, outputs, inputs);
    for_pieces(outputs, GRADIENT_PIECE, rows * inputs * outputs, |piece| {
        // SAFETY: the pieces do not overlap.
        let grad = unsafe { parts.part(piece.start * inputs..piece.end * inputs) };
        Product {
            a: upstream,
            a_rows: &piece.collect::<Vec<_>>(),
            b: x,
            terms: &terms,
            columns: Columns::neighbours(inputs),
            c: Target::Fresh(grad),
            c_stride: inputs,
            start: Start::Zero,
            relu: false,
        }
        .run(isa);
    });
    // SAFETY: the pieces are all rows of the weight, and the product of each writes all columns.
    unsafe { grad.assume_init(outputs * inputs) }
}

/// The gradient of the bias.
pub(super) fn backward_bias<F: Element>(outputs: usize, upstream: &[F]) -> Vec<F> {
    let mut grad = vec![F::ZERO; outputs];
    if outputs > 0 {
        for row in upstream.chunks_exact(outputs) {
            for (sum, &value) in grad.iter_mut().zip(row) {
                *sum += value;
            }
        }
    }
    grad
}
