//! Gradients of a convolution by pairs of rows, with two thirds of the multiply-adds (Winograd, Arithmetic Complexity of
//! Computations, 1980; for convolutional networks Lavin and Gray, <https://arxiv.org/abs/1509.09308>).
//!
//! Two neighbouring results of three taps, `y0 = d0 g0 + d1 g1 + d2 g2` and `y1 = d1 g0 + d2 g1 + d3 g2`, take six
//! multiplications as they stand and four of sums:
//!
//! ```text
//! m0 = (d0 - d2) g0                    y0 = m0 + m1 + m2
//! m1 = (d1 + d2) (g0 + g1 + g2) / 2    y1 = m3 + m1 - m2
//! m2 = (d2 - d1) (g0 - g1 + g2) / 2
//! m3 = (d3 - d1) g2
//! ```
//!
//! and of two taps three. Here the results are rows of the image, the taps rows of the kernel, and a multiplication is a sum over
//! channels and kernel columns, which is a [`Product`]. More rows of the kernel are cut into threes and twos, whose sums add up to
//! the same four. Rows are added to rows alone, never pixels to pixels of their row, so every vector is a run of memory.
//!
//! The gradient of `x` is such a convolution of the upstream gradient with the turned kernel. The gradient of `weight` is the
//! same scheme transposed: `m` is a sum over positions of the rows above times `y0`, `y0 + y1`, `y0 - y1` and `y1`, and a
//! tap's gradient collects each `m` with the factor that the tap has in it.
//!
//! Rounding differs from that of the direct sums and is no worse than twice as large; an infinite number may give NaN where they
//! are infinite. Results that a number does not reach do not see it. The forward pass does without: equal windows would give
//! results that are equal but for rounding, and pooling would choose among them at random.

use std::mem::MaybeUninit;
use std::ops::Range;

use candle_simd::{Float, Isa, Kernel, Simd, Vector};

use super::super::Conv2dGeometry;
use super::{add_positions, by_image, row_suits_vectors, sum_by_chunks};
use crate::element::Element;
use crate::kernels::lanes::lanes;
use crate::kernels::pad::{Padded, pad};
use crate::kernels::product::{Columns, DEPTH, Product, Start, Target, Term};
use crate::kernels::scratch::Scratch;
use crate::kernels::turn::turn;

/// Channels on either side from which the saved multiply-adds pay for the additions.
const CHANNELS_FROM: usize = 8;

/// Pairs of rows that the gradient of `x` takes at a time, so that what is between two steps stays in the cache.
const PAIRS_AT_ONCE: usize = 4;

/// The four sums of products: `m0` to `m3`.
const SUMS: usize = 4;

/// Whether the gradient of `x` takes less time in pairs of rows.
pub(super) fn pays_for_input(geometry: &Conv2dGeometry, lanes: usize) -> bool {
    let Conv2dGeometry {
        input: (height, width),
        options,
        ..
    } = *geometry;
    let reach = reach(geometry);
    // Vectors run along the rows: three quarters of their lanes at least are pixels.
    let fills = row_suits_vectors(lanes, width) && 4 * width >= 3 * width.next_multiple_of(lanes);
    fits(geometry)
        && fills
        && height >= 4
        && options.padding.0 <= reach.0
        && options.padding.1 <= reach.1
}

/// Whether the gradient of `weight` takes less time in pairs of rows.
pub(super) fn pays_for_weight(geometry: &Conv2dGeometry) -> bool {
    fits(geometry) && geometry.output.0 >= 4
}

fn fits(geometry: &Conv2dGeometry) -> bool {
    geometry.kernel.0 >= 3
        && geometry.options.stride == (1, 1)
        && geometry.options.dilation.0 == 1
        && geometry.group_inputs() >= CHANNELS_FROM
        && geometry.group_outputs() >= CHANNELS_FROM
}

/// Rows and columns from the first kernel element to the last.
fn reach(geometry: &Conv2dGeometry) -> (usize, usize) {
    let (rows, columns) = geometry.kernel;
    (rows - 1, (columns - 1) * geometry.options.dilation.1)
}

/// What is added to a row.
#[derive(Debug, Clone, Copy)]
enum Other {
    Nothing,
    Plus(usize),
    Minus(usize),
}

/// A factor pair of a multiplication: rows under the kernel, and the taps that they meet.
#[derive(Debug, Clone, Copy)]
struct Factors {
    /// Which of the four sums it belongs to.
    sum: usize,
    /// A row under the kernel, of those of two windows.
    row: usize,
    other: Other,
    /// The first of the taps.
    tap: usize,
    /// What the taps are multiplied by.
    weights: [f64; 3],
}

impl Factors {
    const fn new(sum: usize, row: usize, other: Other, weights: [f64; 3]) -> Self {
        Self {
            sum,
            row,
            other,
            tap: 0,
            weights,
        }
    }

    const THREE: [Self; 4] = [
        Self::new(0, 0, Other::Minus(2), [1.0, 0.0, 0.0]),
        Self::new(1, 1, Other::Plus(2), [0.5, 0.5, 0.5]),
        Self::new(2, 2, Other::Minus(1), [0.5, -0.5, 0.5]),
        Self::new(3, 3, Other::Minus(1), [0.0, 0.0, 1.0]),
    ];

    /// Of two taps `m1` is `d1 (g0 + g1)`, `m2` nothing and `m3` `(d2 - d1) g1`.
    const TWO: [Self; 3] = [
        Self::new(0, 0, Other::Minus(1), [1.0, 0.0, 0.0]),
        Self::new(1, 1, Other::Nothing, [1.0, 1.0, 0.0]),
        Self::new(3, 2, Other::Minus(1), [0.0, 1.0, 0.0]),
    ];

    /// Those of a kernel of two rows or more: as many threes as leave twos or nothing.
    fn of_kernel(rows: usize) -> Vec<Self> {
        let mut factors = Vec::new();
        let mut tap = 0;
        while tap < rows {
            let left = rows - tap;
            let (of_part, taps): (&[Self], _) = match left {
                2 | 4 => (&Self::TWO, 2),
                _ => (&Self::THREE, 3),
            };
            factors.extend(of_part.iter().map(|factors| {
                let other = match factors.other {
                    Other::Nothing => Other::Nothing,
                    Other::Plus(row) => Other::Plus(row + tap),
                    Other::Minus(row) => Other::Minus(row + tap),
                };
                Self {
                    row: factors.row + tap,
                    other,
                    tap,
                    ..*factors
                }
            }));
            tap += taps;
        }
        factors
    }

    /// The taps that it has, with their factors.
    fn taps(&self) -> impl Iterator<Item = (usize, f64)> {
        let taps = self.weights.into_iter().enumerate();
        let tap = self.tap;
        taps.filter(|&(_, weight)| weight != 0.0)
            .map(move |(k, weight)| (tap + k, weight))
    }
}

/// A padded image of which pairs of rows are taken: of every channel and pair, the first factor of each multiplication.
#[derive(Debug)]
struct Pairs {
    factors: Vec<Factors>,
    padded: Padded,
    /// Pairs of result rows of an image.
    count: usize,
    /// Most that are laid out at a time.
    at_once: usize,
    lanes: usize,
}

impl Pairs {
    /// For a result of `rows` rows and `columns`; the image's first pixel lies at `first` under the windows. Rows are whole vectors.
    fn new(
        geometry: &Conv2dGeometry,
        lanes: usize,
        image: (usize, usize),
        first: (usize, usize),
        (rows, columns): (usize, usize),
        at_once: usize,
    ) -> Self {
        let (reach_rows, reach_columns) = reach(geometry);
        let count = rows.div_ceil(2);
        let row = (columns + reach_columns).next_multiple_of(lanes);
        let padded = Padded {
            image,
            plane: (2 * count + reach_rows) * row,
            first: first.0 * row + first.1,
            row,
        };
        Self {
            factors: Factors::of_kernel(geometry.kernel.0),
            padded,
            count,
            at_once: at_once.min(count),
            lanes,
        }
    }

    /// Elements from a pair to the next.
    fn step(&self) -> usize {
        self.factors.len() * self.padded.row
    }

    /// Elements from a channel to the next: an odd number of vectors, so that the same place of neighbouring channels, which a
    /// product reads together, is in another set of the cache for each.
    fn channel(&self) -> usize {
        ((self.at_once * self.step() / self.lanes) | 1) * self.lanes
    }

    /// For each factor pair of a sum: its index, and where its row starts in a pair.
    fn of_sum(&self, sum: usize) -> impl Iterator<Item = (&Factors, usize)> {
        let rows = self.factors.iter().enumerate();
        rows.filter(move |(_, factors)| factors.sum == sum)
            .map(|(index, factors)| (factors, index * self.padded.row))
    }

    /// The pairs of an image, in pieces.
    fn pieces(&self) -> impl Iterator<Item = Range<usize>> {
        let (count, at_once) = (self.count, self.at_once);
        (0..count)
            .step_by(at_once)
            .map(move |first| first..count.min(first + at_once))
    }

    /// Lays the first factors of some pairs out, of all channels of a padded image.
    fn lay_out<F: Element>(&self, isa: Isa, pairs: Range<usize>, planes: &[F], to: &mut [F]) {
        isa.dispatch(LayOut {
            layout: self,
            pairs,
            planes,
            to,
        });
    }
}

struct LayOut<'a, F> {
    layout: &'a Pairs,
    pairs: Range<usize>,
    planes: &'a [F],
    to: &'a mut [F],
}

impl<F: Float> Kernel for LayOut<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let layout = self.layout;
        let Padded { plane, row, .. } = layout.padded;
        let planes = self.planes.chunks_exact(plane);
        for (plane, to) in planes.zip(self.to.chunks_exact_mut(layout.channel())) {
            for (pair, to) in self.pairs.clone().zip(to.chunks_exact_mut(layout.step())) {
                let under = &plane[2 * pair * row..];
                for (factors, to) in layout.factors.iter().zip(to.chunks_exact_mut(row)) {
                    let at = |index: usize| &under[index * row..][..row];
                    let from = at(factors.row);
                    match factors.other {
                        Other::Nothing => to.copy_from_slice(from),
                        Other::Plus(other) => combine(s, from, at(other), to, |a, b| a + b),
                        Other::Minus(other) => combine(s, from, at(other), to, |a, b| a - b),
                    }
                }
            }
        }
    }
}

/// Writes `f(a, b)` to `to`, element by element; all are of one length.
#[inline(always)]
fn combine<S: Simd, F: Float>(
    s: S,
    a: &[F],
    b: &[F],
    to: &mut [F],
    f: impl Fn(F::V<S>, F::V<S>) -> F::V<S>,
) {
    let lanes = F::V::<S>::LANES;
    let (mut a, mut b, mut to) = (
        a.chunks_exact(lanes),
        b.chunks_exact(lanes),
        to.chunks_exact_mut(lanes),
    );
    for ((a, b), to) in (&mut a).zip(&mut b).zip(&mut to) {
        f(F::V::<S>::load(s, a), F::V::<S>::load(s, b)).store(to);
    }
    let load = |rest| F::V::<S>::load_partial(s, rest, F::ZERO);
    let to = to.into_remainder();
    if !to.is_empty() {
        f(load(a.remainder()), load(b.remainder())).store_partial(to);
    }
}

/// One of the four sums as a product of weights and rows.
struct Sum<F> {
    /// By group, input channel and term.
    weights: Vec<F>,
    /// By input channel of a group: where its weights start.
    rows: Vec<usize>,
    /// By output channel, factor pair and kernel column.
    terms: Vec<Term>,
}

impl<F: Element> Sum<F> {
    fn new(geometry: &Conv2dGeometry, pairs: &Pairs, sum: usize, weight: &[F]) -> Self {
        let (inputs, outputs) = (geometry.group_inputs(), geometry.group_outputs());
        let (rows, columns) = geometry.kernel;
        let dilation = geometry.options.dilation.1;
        let mut terms = Vec::new();
        for o in 0..outputs {
            for (_, row) in pairs.of_sum(sum) {
                for b in 0..columns {
                    terms.push(Term {
                        a: terms.len(),
                        b: o * pairs.channel() + row + b * dilation,
                    });
                }
            }
        }
        let mut weights = Vec::with_capacity(geometry.in_channels * terms.len());
        for c in 0..geometry.in_channels {
            let (group, c) = (c / inputs, c % inputs);
            for o in 0..outputs {
                let kernel = ((group * outputs + o) * inputs + c) * rows * columns;
                // The kernel turned round: its last element comes first.
                let turned = |a: usize, b: usize| {
                    weight[kernel + (rows - 1 - a) * columns + columns - 1 - b]
                };
                for (factors, _) in pairs.of_sum(sum) {
                    for b in 0..columns {
                        let tap = |(a, weight)| <F as Float>::from_f64(weight) * turned(a, b);
                        weights.push(factors.taps().map(tap).fold(F::ZERO, |sum, x| sum + x));
                    }
                }
            }
        }
        Self {
            weights,
            rows: (0..inputs).map(|c| c * terms.len()).collect(),
            terms,
        }
    }
}

/// The gradient of `x`, row-major.
pub(super) fn backward_input<F: Element>(
    isa: Isa,
    geometry: &Conv2dGeometry,
    weight: &[F],
    upstream: &[F],
) -> Vec<F> {
    let (inputs, outputs) = (geometry.group_inputs(), geometry.group_outputs());
    let (height, width) = geometry.input;
    let (reach, padding) = (reach(geometry), geometry.options.padding);
    let pairs = Pairs::new(
        geometry,
        lanes::<F>(isa),
        geometry.output,
        (reach.0 - padding.0, reach.1 - padding.1),
        geometry.input,
        PAIRS_AT_ONCE,
    );
    let sums: [Sum<F>; SUMS] = std::array::from_fn(|sum| Sum::new(geometry, &pairs, sum, weight));
    // A channel's rows of one of the sums.
    let stride = pairs.at_once * width;
    let image = |n: usize, grad: &mut [MaybeUninit<F>]| {
        let upstream = &upstream[n * geometry.output_len()..][..geometry.output_len()];
        let mut planes = Scratch::dirty(outputs * pairs.padded.plane);
        let mut laid_out = Scratch::dirty(outputs * pairs.channel());
        let mut results = Scratch::dirty(SUMS * inputs * stride);
        let groups = upstream
            .chunks_exact(outputs * geometry.positions())
            .zip(grad.chunks_exact_mut(inputs * height * width));
        for (group, (upstream, grad)) in groups.enumerate() {
            pad(isa, pairs.padded, upstream, &mut planes);
            for piece in pairs.pieces() {
                pairs.lay_out(isa, piece.clone(), &planes, &mut laid_out);
                let of_sum = results.chunks_exact_mut(inputs * stride);
                for (sum, results) in sums.iter().zip(of_sum) {
                    Product {
                        a: &sum.weights[group * inputs * sum.terms.len()..],
                        a_rows: &sum.rows,
                        b: &laid_out,
                        terms: &sum.terms,
                        columns: Columns {
                            count: width,
                            runs: piece.len(),
                            b_step: pairs.step(),
                            c_step: width,
                        },
                        c: Target::Given(results),
                        c_stride: stride,
                        start: Start::Zero,
                        relu: false,
                    }
                    .run(isa);
                }
                isa.dispatch(Join {
                    results: &results,
                    stride,
                    rows: 2 * piece.start..height.min(2 * piece.end),
                    image: (height, width),
                    grad,
                });
            }
        }
    };
    // SAFETY: each piece of an image writes its rows of every channel.
    unsafe { by_image(geometry, geometry.input_len(), image) }
}

/// Writes rows of every channel: `m0 + m1 + m2` and `m3 + m1 - m2` in turn.
struct Join<'a, F> {
    /// By sum, channel and pair.
    results: &'a [F],
    /// Elements from a channel to the next.
    stride: usize,
    /// The rows that are written; the first is even.
    rows: Range<usize>,
    image: (usize, usize),
    grad: &'a mut [MaybeUninit<F>],
}

impl<F: Float> Kernel for Join<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let lanes = F::V::<S>::LANES;
        let (height, width) = self.image;
        let sum = self.results.len() / SUMS;
        let channels = self.grad.chunks_exact_mut(height * width);
        for (c, grad) in channels.enumerate() {
            let rows = grad.chunks_exact_mut(width).enumerate();
            let rows = rows.skip(self.rows.start).take(self.rows.len());
            for (y, row) in rows {
                let (first, sign) = if y % 2 == 0 {
                    (0, F::ONE)
                } else {
                    (3, -F::ONE)
                };
                let sign = F::V::<S>::splat(s, sign);
                let from = c * self.stride + (y - self.rows.start) / 2 * width;
                let m = |k: usize| &self.results[k * sum + from..][..width];
                let (first, m1, m2) = (m(first), m(1), m(2));
                for (index, to) in row.chunks_mut(lanes).enumerate() {
                    let at = index * lanes..index * lanes + to.len();
                    let load = |m: &[F]| F::V::<S>::load_partial(s, &m[at.clone()], F::ZERO);
                    let value = sign.mul_add(load(m2), load(first) + load(m1)).to_array();
                    for (to, &value) in to.iter_mut().zip(&value) {
                        to.write(value);
                    }
                }
            }
        }
    }
}

/// The gradients of `weight` and of the bias, row-major.
///
/// As in [`super::direct::backward_weight`], vectors run along the output channels.
pub(super) fn backward_weight<F: Element>(
    isa: Isa,
    geometry: &Conv2dGeometry,
    x: &[F],
    upstream: &[F],
) -> (Vec<F>, Vec<F>) {
    let (height, width) = geometry.output;
    let (inputs, outputs) = (geometry.group_inputs(), geometry.group_outputs());
    let pairs = Pairs::new(
        geometry,
        lanes::<F>(isa),
        geometry.input,
        geometry.options.padding,
        geometry.output,
        (DEPTH / width).max(1),
    );
    let sums: [PositionSum; SUMS] =
        std::array::from_fn(|sum| PositionSum::new(geometry, &pairs, sum));
    // By group, sum, row of the sum and output channel; then the gradient of the bias.
    let of_group = sums.iter().map(|sum| sum.rows.len()).sum::<usize>() * outputs;
    let len = geometry.options.groups * of_group;
    let (total, bias) = sum_by_chunks(geometry, len, |images, weight, bias| {
        let mut planes = Scratch::dirty(inputs * pairs.padded.plane);
        let mut laid_out = Scratch::dirty(inputs * pairs.channel());
        let mut turned = Scratch::dirty(2 * pairs.count * width * outputs);
        let mut added = Scratch::dirty(pairs.count * width * outputs);
        let mut subtracted = Scratch::dirty(pairs.count * width * outputs);
        for n in images {
            for group in 0..geometry.options.groups {
                let of_inputs = inputs * geometry.input.0 * geometry.input.1;
                let image = &x[n * geometry.input_len() + group * of_inputs..][..of_inputs];
                pad(isa, pairs.padded, image, &mut planes);
                let from = n * geometry.output_len() + group * outputs * geometry.positions();
                turn(
                    isa,
                    (outputs, height * width),
                    (&upstream[from..], geometry.positions()),
                    (&mut turned, outputs),
                );
                // The last pair of an odd height has no second row.
                turned[height * width * outputs..].fill(F::ZERO);
                add_positions(&mut bias[group * outputs..][..outputs], &turned);
                isa.dispatch(AddAndSubtract {
                    row: width * outputs,
                    rows: &turned,
                    added: &mut added,
                    subtracted: &mut subtracted,
                });
                for piece in pairs.pieces() {
                    pairs.lay_out(isa, piece.clone(), &planes, &mut laid_out);
                    let mut weight = &mut weight[group * of_group..][..of_group];
                    for (k, sum) in sums.iter().enumerate() {
                        let of_sum;
                        (of_sum, weight) = weight.split_at_mut(sum.rows.len() * outputs);
                        let from: &[F] = match k {
                            1 => &added,
                            2 => &subtracted,
                            _ => &turned,
                        };
                        Product {
                            a: &laid_out,
                            a_rows: &sum.rows,
                            b: &from[piece.start * sum.step..],
                            terms: &sum.terms[..piece.len() * width],
                            columns: Columns::neighbours(outputs),
                            c: Target::Given(of_sum),
                            c_stride: outputs,
                            start: Start::Accumulate,
                            relu: false,
                        }
                        .run(isa);
                    }
                }
            }
        }
    });
    (weight_of_sums(geometry, &pairs, &total), bias)
}

/// The gradient of `weight` of the sums for each group, sum, row of the sum and output channel.
fn weight_of_sums<F: Element>(geometry: &Conv2dGeometry, pairs: &Pairs, total: &[F]) -> Vec<F> {
    let (inputs, outputs) = (geometry.group_inputs(), geometry.group_outputs());
    let (rows, columns) = geometry.kernel;
    let mut weight = vec![F::ZERO; geometry.weight_len()];
    let mut next = 0;
    for group in 0..geometry.options.groups {
        for sum in 0..SUMS {
            for c in 0..inputs {
                for (factors, _) in pairs.of_sum(sum) {
                    for b in 0..columns {
                        let m = &total[next..next + outputs];
                        next += outputs;
                        for (a, factor) in factors.taps() {
                            let tap = (c * rows + a) * columns + b;
                            let factor = <F as Float>::from_f64(factor);
                            for (o, &m) in m.iter().enumerate() {
                                weight[(group * outputs + o) * geometry.taps() + tap] += factor * m;
                            }
                        }
                    }
                }
            }
        }
    }
    weight
}

/// One of the four sums as a product over positions.
struct PositionSum {
    /// By input channel, factor pair and kernel column: where its row starts.
    rows: Vec<usize>,
    /// By pair and column.
    terms: Vec<Term>,
    /// Elements of the second factor from a pair to the next.
    step: usize,
}

impl PositionSum {
    fn new(geometry: &Conv2dGeometry, pairs: &Pairs, sum: usize) -> Self {
        let (outputs, width) = (geometry.group_outputs(), geometry.output.1);
        let dilation = geometry.options.dilation.1;
        let mut rows = Vec::new();
        for c in 0..geometry.group_inputs() {
            for (_, row) in pairs.of_sum(sum) {
                let tap = |b| c * pairs.channel() + row + b * dilation;
                rows.extend((0..geometry.kernel.1).map(tap));
            }
        }
        // `y0` and `y1` are rows of the upstream gradient, the others are laid out pair by pair.
        let (step, first) = match sum {
            0 => (2 * width, 0),
            3 => (2 * width, width),
            _ => (width, 0),
        };
        let position = |k: usize| Term {
            a: k / width * pairs.step() + k % width,
            b: (k / width * step + first + k % width) * outputs,
        };
        Self {
            rows,
            terms: (0..pairs.at_once * width).map(position).collect(),
            step: step * outputs,
        }
    }
}

/// Writes the sum and the difference of each pair of rows.
struct AddAndSubtract<'a, F> {
    /// Elements of a row.
    row: usize,
    rows: &'a [F],
    added: &'a mut [F],
    subtracted: &'a mut [F],
}

impl<F: Float> Kernel for AddAndSubtract<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let pairs = self.rows.chunks_exact(2 * self.row);
        let added = self.added.chunks_exact_mut(self.row);
        let subtracted = self.subtracted.chunks_exact_mut(self.row);
        for ((pair, added), subtracted) in pairs.zip(added).zip(subtracted) {
            let (first, second) = pair.split_at(self.row);
            combine(s, first, second, added, |a, b| a + b);
            combine(s, first, second, subtracted, |a, b| a - b);
        }
    }
}
