//! Backward pass with lanes along the pooled columns, for few channels and wide maps where no input gradient is wanted, such
//! as LeNet's first layer.
//!
//! A window's gradient meets, for each kernel element, the pixel that the window's winner saw there: one of four. Lanes have
//! different winners, so the four pixels are loaded as vectors and chosen from by two masks, right or left and down or up;
//! neighbouring kernel elements share all but a row and a column of them. That is one multiply-add for sixteen windows and
//! kernel element, and no list of winners. The sums of a channel stay in registers for some images.
//!
//! A pixel that no gradient meets may be infinite, and its product with 0 must not reach a sum. Images in which every pixel
//! is finite, which is nearly all, need no mask for that.
//!
//! Chunks of images, cut by the batch alone, sum their own gradients; the chunks are added in order.

use candle_simd::parallel::Disjoint;
use candle_simd::{Isa, Kernel, Simd, Vector};

use super::super::Geometry;
use super::super::fused::Known;
use super::column_lanes::{half_columns, planes_len, split_columns};
use super::halving::{chunk_size, for_image_chunks, prefetch_share, winners_len};
use crate::element::Element;
use crate::kernels::partial_sums::add_in_order;
use crate::kernels::scratch::Scratch;
use crate::layer_op::Gradients;

/// How one image is laid out, and its gradients.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// Padded image rows.
    rows: usize,
    /// Elements of one parity of such a row.
    half: usize,
    /// Elements of a row of gradients, whole vectors.
    width: usize,
}

impl Layout {
    fn new(geometry: &Geometry, lanes: usize) -> Self {
        let conv = &geometry.conv;
        Self {
            rows: conv.input.0 + 2 * conv.options.padding.0,
            half: half_columns(geometry),
            width: geometry.pool.output.1.next_multiple_of(lanes),
        }
    }

    /// Elements of an image.
    fn seen_len(&self, channels: usize) -> usize {
        channels * self.rows * 2 * self.half
    }
}

/// Elements that one image takes, and how many images are taken together.
#[derive(Clone, Copy)]
struct Sizes {
    seen: usize,
    gradients: usize,
    pooled: usize,
    winners: usize,
    at_once: usize,
}

impl Sizes {
    fn new(geometry: &Geometry, layout: &Layout) -> Self {
        /// Of `f32` half of the first-level cache.
        const CACHED: usize = 6 << 10;
        let outputs = geometry.conv.out_channels;
        let seen = layout.seen_len(geometry.conv.in_channels);
        let gradients = outputs * geometry.pool.output.0 * layout.width;
        Self {
            seen,
            gradients,
            pooled: outputs * geometry.pooled(),
            winners: winners_len(geometry),
            at_once: (CACHED / (seen + gradients).max(1)).max(1),
        }
    }
}

/// The weight and bias gradients of a batch.
pub(in crate::conv2d_relu_max_pool2d) fn backward<F: Element>(
    isa: Isa,
    geometry: &Geometry,
    known: Known<'_, F>,
) -> Gradients<F> {
    let conv = &geometry.conv;
    let (taps, outputs) = (conv.taps(), conv.out_channels);
    let sums_len = outputs * (taps + 1);
    let chunks = conv.batch.div_ceil(chunk_size(geometry));
    let mut sums = Scratch::zeroed(chunks * sums_len);
    let parts = Disjoint::new(&mut sums);
    let (pooled, kept) = (outputs * geometry.pooled(), winners_len(geometry));
    for_image_chunks(geometry, |chunk, images| {
        let part = |len: usize| images.start * len..images.end * len;
        isa.dispatch(Chunk {
            geometry,
            known: Known {
                winners: &known.winners[part(kept)],
                x: &known.x[part(conv.input_len())],
                weight: known.weight,
                y: &known.y[part(pooled)],
                upstream: &known.upstream[part(pooled)],
            },
            // SAFETY: every chunk has sums of its own.
            sums: unsafe { parts.part(chunk * sums_len..(chunk + 1) * sums_len) },
        });
    });
    let mut weight = add_in_order(&sums, sums_len);
    let bias = weight.split_off(outputs * taps);
    Gradients {
        x: Vec::new(),
        weight,
        bias,
    }
}

/// A part of the kernel whose sums are in registers together.
#[derive(Clone, Copy)]
struct Piece {
    row: usize,
    rows: usize,
    column: usize,
    columns: usize,
}

/// Rows and columns of a piece: as many sums as leave room for a kernel row of pixels in 32 registers. Pixels that need a mask
/// are rare, and not worth the code; nor are 16 registers, with which only tests come here.
fn most_of_a_piece(isa: Isa, masked: bool) -> (usize, usize) {
    match (isa, masked) {
        (Isa::Avx512, false) => (5, 5),
        _ => (1, 1),
    }
}

/// A chunk of images; writes its weight gradients, then its bias gradients.
struct Chunk<'a, F: Element> {
    geometry: &'a Geometry,
    known: Known<'a, F>,
    sums: &'a mut [F],
}

impl<F: Element> Kernel for Chunk<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            geometry,
            known,
            sums: results,
        } = self;
        let conv = &geometry.conv;
        let lanes = F::V::<S>::LANES;
        let layout = Layout::new(geometry, lanes);
        let (taps, outputs) = (conv.taps(), conv.out_channels);
        let sizes = Sizes::new(geometry, &layout);
        // What is padding stays zero; behind the last image there is room for vectors that reach past it.
        let mut seen = Scratch::zeroed((sizes.at_once - 1) * sizes.seen + planes_len(geometry));
        let mut gradients = Scratch::dirty(sizes.at_once * sizes.gradients);
        let mut sums = Scratch::zeroed(outputs * (taps + 1) * lanes);
        let (weight_sums, bias_sums) = sums.split_at_mut(outputs * taps * lanes);
        // For good: vectors behind the last of fewer images see what was there before.
        let mut finite = true;
        let mut images = known.x.chunks(sizes.at_once * conv.input_len());
        let known = known
            .y
            .chunks(sizes.at_once * sizes.pooled)
            .zip(known.upstream.chunks(sizes.at_once * sizes.pooled))
            .zip(known.winners.chunks(sizes.at_once * sizes.winners));
        for ((y, upstream), winners) in known {
            let Some(x) = images.next() else { break };
            let (xs, ys) = (
                x.chunks_exact(conv.input_len()),
                y.chunks_exact(sizes.pooled),
            );
            let count = xs.len();
            for (n, x) in xs.enumerate() {
                split_columns(s, geometry, x, &mut seen[n * sizes.seen..]);
                finite &= all_finite(s, x);
            }
            for ((y, upstream), gradients) in ys
                .zip(upstream.chunks_exact(sizes.pooled))
                .zip(gradients.chunks_exact_mut(sizes.gradients))
            {
                pass(s, geometry, &layout, y, upstream, gradients, bias_sums);
            }
            let images = Images {
                geometry,
                layout: &layout,
                sizes,
                count,
                finite,
                next: images.clone().next().unwrap_or_default(),
                seen: &seen,
                gradients: &gradients,
                winners,
            };
            images.add_weight_gradients(s, weight_sums);
        }
        for (result, lanes) in results.iter_mut().zip(sums.chunks_exact(lanes)) {
            *result = F::V::<S>::load(s, lanes).reduce_add();
        }
    }
}

/// Whether no number is infinite or NaN.
#[inline(always)]
fn all_finite<F: Element, S: Simd>(s: S, numbers: &[F]) -> bool {
    let zero = F::V::<S>::splat(s, F::ZERO);
    let lanes = F::V::<S>::LANES;
    // 0 times an infinity or NaN is NaN, and so is every sum with it.
    let mut sums = [zero; 4];
    let blocks = numbers.chunks_exact(4 * lanes);
    for numbers in blocks.remainder().chunks(lanes) {
        let numbers = F::V::<S>::load_partial(s, numbers, F::ZERO);
        sums[0] = numbers.mul_add(zero, sums[0]);
    }
    for block in blocks {
        for (sum, numbers) in sums.iter_mut().zip(block.chunks_exact(lanes)) {
            *sum = F::V::<S>::load(s, numbers).mul_add(zero, *sum);
        }
    }
    let [a, b, c, d] = sums;
    F::V::<S>::mask_bits(((a + b) + (c + d)).is_nan()) == 0
}

/// The gradients that relu passes, with zeros behind each row, and their sums by channel.
#[inline(always)]
fn pass<F: Element, S: Simd>(
    s: S,
    geometry: &Geometry,
    layout: &Layout,
    y: &[F],
    upstream: &[F],
    gradients: &mut [F],
    bias: &mut [F],
) {
    let lanes = F::V::<S>::LANES;
    let zero = F::V::<S>::splat(s, F::ZERO);
    let (height, width) = geometry.pool.output;
    for j in (0..layout.width).step_by(lanes) {
        let count = lanes.min(width - j);
        let channels = y
            .chunks_exact(height * width)
            .zip(upstream.chunks_exact(height * width))
            .zip(gradients.chunks_exact_mut(height * layout.width))
            .zip(bias.chunks_exact_mut(lanes));
        for (((y, upstream), gradients), bias) in channels {
            let mut sum = F::V::<S>::load(s, bias);
            let rows = y
                .chunks_exact(width)
                .zip(upstream.chunks_exact(width))
                .zip(gradients.chunks_exact_mut(layout.width));
            for ((y, upstream), gradients) in rows {
                let y = F::V::<S>::load_partial(s, &y[j..j + count], F::ZERO);
                let upstream = F::V::<S>::load_partial(s, &upstream[j..j + count], F::ZERO);
                // NaN counts as passed by relu.
                let gradient = zero.select(y.le(zero), upstream);
                sum = sum + gradient;
                gradient.store(&mut gradients[j..]);
            }
            sum.store(bias);
        }
    }
}

/// Images that are laid out.
struct Images<'a, F: Element> {
    geometry: &'a Geometry,
    layout: &'a Layout,
    sizes: Sizes,
    count: usize,
    /// Whether every pixel is, and was in the images before these.
    finite: bool,
    /// The images after these, or none.
    next: &'a [F],
    seen: &'a [F],
    gradients: &'a [F],
    winners: &'a [u8],
}

impl<F: Element> Images<'_, F> {
    /// Adds a vector for each weight.
    #[inline(always)]
    fn add_weight_gradients<S: Simd>(&self, s: S, sums: &mut [F]) {
        let (rows, columns) = self.geometry.conv.kernel;
        let masked = !self.finite;
        let (most_rows, most_columns) = most_of_a_piece(S::ISA, masked);
        for row in (0..rows).step_by(most_rows) {
            for column in (0..columns).step_by(most_columns) {
                let piece = Piece {
                    row,
                    rows: most_rows.min(rows - row),
                    column,
                    columns: most_columns.min(columns - column),
                };
                macro_rules! sizes {
                    ($($rows:literal $columns:literal)*) => {
                        match (piece.rows, piece.columns) {
                            $(($rows, $columns) => {
                                self.piece::<S, $rows, $columns, false>(s, piece, sums)
                            })*
                            _ => unreachable!("pieces are cut to at most five rows and columns"),
                        }
                    };
                }
                if masked {
                    self.piece::<S, 1, 1, true>(s, piece, sums);
                } else if S::ISA == Isa::Avx512 {
                    sizes!(
                        1 1  1 2  1 3  1 4  1 5  2 1  2 2  2 3  2 4  2 5  3 1  3 2  3 3  3 4  3 5
                        4 1  4 2  4 3  4 4  4 5  5 1  5 2  5 3  5 4  5 5
                    );
                } else {
                    self.piece::<S, 1, 1, false>(s, piece, sums);
                }
            }
        }
    }

    /// Adds the gradients of a piece of R rows of C columns. MASKED: of pixels that a gradient meets alone.
    #[inline(always)]
    fn piece<S: Simd, const R: usize, const C: usize, const MASKED: bool>(
        &self,
        s: S,
        piece: Piece,
        sums: &mut [F],
    ) {
        let conv = &self.geometry.conv;
        let Layout { rows, half, width } = *self.layout;
        let (taps, (height, windows)) = (conv.taps(), self.geometry.pool.output);
        let zero = F::V::<S>::splat(s, F::ZERO);
        let (lanes, row_step) = (F::V::<S>::LANES, 2 * half);
        // The piece's first column, and those an even number from it, lie in one half of a row, the others in the other.
        let column = |column: usize| column % 2 * half + column / 2;
        let halves = [column(piece.column), column(piece.column + 1)];
        assert!(sums.len() >= conv.out_channels * taps * lanes);
        assert!(self.sizes.seen >= conv.in_channels * rows * row_step);
        assert!(self.sizes.gradients >= conv.out_channels * height * width);
        assert!(self.sizes.winners >= winners_len(self.geometry));
        assert!(
            self.seen.len() + self.sizes.seen
                >= self.count * self.sizes.seen + planes_len(self.geometry)
        );
        assert!(self.gradients.len() >= self.count * self.sizes.gradients);
        assert!(self.winners.len() >= self.count * self.sizes.winners);
        assert!(2 * height + conv.kernel.0 <= rows + 1);
        assert!(piece.row + R <= conv.kernel.0 && piece.column + C <= conv.kernel.1);
        for o in 0..conv.out_channels {
            if (piece.row, piece.column) == (0, 0) {
                prefetch_share(self.next, o, conv.out_channels);
            }
            for c in 0..conv.in_channels {
                let first = o * taps + (c * conv.kernel.0 + piece.row) * conv.kernel.1;
                let first = (first + piece.column) * lanes;
                let to = &mut sums[first..];
                for j in (0..width).step_by(lanes) {
                    // SAFETY: pixel rows from the piece's first kernel row on, two for each pooled row and R - 1 more,
                    // exist; a vector that starts in one reaches past it by less than half a kernel and a vector, for which
                    // there is room behind the last. There is a vector of gradients for each pooled row and column j.
                    // Winners have room for a vector behind the last. The sums are those of a channel's weights, of which
                    // the piece is a part.
                    unsafe {
                        let to = to.as_mut_ptr();
                        let at = |a: usize, b: usize| (a * conv.kernel.1 + b) * lanes;
                        // No `from_fn` of so many vectors: it is a call of its own that sends them through memory.
                        let mut sum = [[zero; C]; R];
                        for (a, row) in sum.iter_mut().enumerate() {
                            for (b, sum) in row.iter_mut().enumerate() {
                                *sum = F::V::<S>::load_ptr(s, to.add(at(a, b)));
                            }
                        }
                        for image in 0..self.count {
                            let seen = image * self.sizes.seen;
                            let seen = seen + (c * rows + piece.row) * row_step;
                            let mut seen = self.seen.as_ptr().add(seen + j);
                            let gradients = image * self.sizes.gradients + o * height * width + j;
                            let mut gradients = self.gradients.as_ptr().add(gradients);
                            let winners = image * self.sizes.winners + o * height * windows + j;
                            let mut winners = self.winners.as_ptr().add(winners);
                            for _ in 0..height {
                                let gradient = F::V::<S>::load_ptr(s, gradients);
                                // Of the winners' indices 0 to 3 odd ones lie right, and the upper two below.
                                let [right, below] =
                                    [1, 2].map(|bit| F::V::<S>::have_bits_u8_ptr(s, winners, bit));
                                let met = !gradient.eq(zero);
                                let pixels = |row: *const F, column: usize| {
                                    let at = halves[column % 2] + column / 2;
                                    let pixels = F::V::<S>::load_ptr(s, row.add(at));
                                    match MASKED {
                                        true => pixels.select(met, zero),
                                        false => pixels,
                                    }
                                };
                                let mut above = [gradient; C];
                                for a in 0..=R {
                                    let row = seen.add(a * row_step);
                                    let mut left = pixels(row, 0);
                                    for b in 0..C {
                                        let beside = pixels(row, b + 1);
                                        let here = beside.select(right, left);
                                        left = beside;
                                        if a > 0 {
                                            let pixel = here.select(below, above[b]);
                                            let sum = &mut sum[a - 1][b];
                                            *sum = gradient.mul_add(pixel, *sum);
                                        }
                                        above[b] = here;
                                    }
                                }
                                seen = seen.add(2 * row_step);
                                gradients = gradients.add(width);
                                winners = winners.add(windows);
                            }
                        }
                        for (a, row) in sum.iter().enumerate() {
                            for (b, sum) in row.iter().enumerate() {
                                sum.store_ptr(to.add(at(a, b)));
                            }
                        }
                    }
                }
            }
        }
    }
}
