//! The input gradient of the sparse backward pass: winners by position, and sums that stay in registers.
//!
//! A column of positions is gone through from top to bottom. The patches of neighbouring rows overlap in all but one
//! kernel row, so that their sums move up by one row of registers from position to position, and the row that no later
//! position reaches is added to the pixels. No sum waits in memory for the next entry.

use candle_simd::{Float, Isa, Kernel, MAX_LANES, Simd, Vector};

use super::entries::{Results, is_entry};
use super::patches::{Patches, Piece};

/// Bits of a byte, each of which stands for an output channel.
const BITS: usize = u8::BITS as usize;

/// Output channels that [`ByPosition`] marks at most.
pub(super) const MOST_CHANNELS: usize = 2 * BITS;

/// Which output channels of a block have an entry at each position of the map.
pub(super) struct ByPosition {
    /// Rows and columns of windows.
    pooled: (usize, usize),
    /// Output channels that were marked.
    channels: usize,
    /// For each index in a window a row with a byte for each window: a bit for each of the first eight channels. Then four
    /// rows of the channels behind them.
    winners: Vec<u8>,
}

impl ByPosition {
    /// For `pooled` rows and columns of windows.
    pub(super) fn new(pooled: (usize, usize)) -> Self {
        let row = pooled.0 * pooled.1 + MAX_LANES;
        Self {
            pooled,
            channels: 0,
            winners: vec![0; 8 * row],
        }
    }

    fn windows(&self) -> usize {
        self.pooled.0 * self.pooled.1
    }

    /// Bytes of a row: there is room for a vector behind the last window.
    fn row(&self) -> usize {
        self.windows() + MAX_LANES
    }

    /// Marks the entries of a block of at most [`MOST_CHANNELS`] output channels.
    pub(super) fn mark<F: Float>(&mut self, isa: Isa, results: Results<'_, F>) {
        assert!(results.channels <= MOST_CHANNELS);
        results.check(self.windows());
        self.channels = results.channels;
        isa.dispatch(Mark {
            by_position: self,
            results,
        });
    }

    /// Adds the input gradient to `pixels`, laid out as [`Patches::gather`] takes them. `upstream` holds the upstream gradients
    /// of the output channels that were marked, `weight` their weights, [`Patches::weights_len`] each.
    pub(super) fn add_input_gradient<F: Float>(
        &self,
        isa: Isa,
        patches: &Patches,
        upstream: &[F],
        weight: &[F],
        pixels: &mut [F],
    ) {
        assert!(upstream.len() >= self.channels * self.windows());
        assert!(weight.len() >= self.channels * patches.weights_len());
        for piece in &patches.pieces {
            let sweep = Sweep {
                marked: self,
                patches,
                piece,
                upstream,
                weight,
                pixels: &mut *pixels,
            };
            match (piece.rows, piece.vectors) {
                (1, 1) => isa.dispatch(Of::<_, 1, 1>(sweep)),
                (2, 1) => isa.dispatch(Of::<_, 2, 1>(sweep)),
                (3, 1) => isa.dispatch(Of::<_, 3, 1>(sweep)),
                (4, 1) => isa.dispatch(Of::<_, 4, 1>(sweep)),
                (5, 1) => isa.dispatch(Of::<_, 5, 1>(sweep)),
                (1, 2) => isa.dispatch(Of::<_, 1, 2>(sweep)),
                (2, 2) => isa.dispatch(Of::<_, 2, 2>(sweep)),
                (3, 2) => isa.dispatch(Of::<_, 3, 2>(sweep)),
                (4, 2) => isa.dispatch(Of::<_, 4, 2>(sweep)),
                (5, 2) => isa.dispatch(Of::<_, 5, 2>(sweep)),
                _ => unreachable!("pieces are cut to at most five rows and two vectors"),
            }
        }
    }
}

struct Mark<'a, F> {
    by_position: &'a mut ByPosition,
    results: Results<'a, F>,
}

impl<F: Float> Kernel for Mark<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            by_position,
            results,
        } = self;
        let lanes = F::V::<S>::LANES;
        let number = |x: usize| F::V::<S>::splat(s, F::from_f64(x as f64));
        let zero = number(0);
        let (windows, row) = (by_position.windows(), by_position.row());
        for j in (0..windows).step_by(lanes) {
            for half in 0..2 {
                // Sums of powers of two, as numbers: whole numbers below 256.
                let mut bits = [zero; 4];
                let mut bit = number(1);
                for n in half * BITS..results.channels.min((half + 1) * BITS) {
                    // SAFETY: `mark` checked that the block has results of `channels` channels, and j is a window.
                    let (result, upstream, winner) = unsafe { results.load(s, windows, n, j) };
                    let is_entry = is_entry(s, result, upstream);
                    for (k, bits) in bits.iter_mut().enumerate() {
                        *bits = *bits + bit.select(is_entry & winner.eq(number(k)), zero);
                    }
                    bit = bit + bit;
                }
                for (k, bits) in bits.into_iter().enumerate() {
                    // SAFETY: a row has room for a vector behind the last window.
                    unsafe {
                        let to = by_position.winners.as_mut_ptr();
                        bits.store_u8_ptr(to.add((4 * half + k) * row + j));
                    }
                }
            }
        }
    }
}

struct Sweep<'a, F> {
    marked: &'a ByPosition,
    patches: &'a Patches,
    piece: &'a Piece,
    upstream: &'a [F],
    weight: &'a [F],
    pixels: &'a mut [F],
}

/// A sweep for a piece of K rows of N vectors.
struct Of<T, const K: usize, const N: usize>(T);

impl<F: Float, const K: usize, const N: usize> Kernel for Of<Sweep<'_, F>, K, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Sweep {
            marked,
            patches,
            piece,
            upstream,
            weight,
            pixels,
        } = self.0;
        let lanes = F::V::<S>::LANES;
        let zero = F::V::<S>::splat(s, F::ZERO);
        let (height, width) = patches.map;
        // Lanes behind a run's end are no gradient; where a number is not finite they are NaN.
        let run = patches.run_len();
        let kept: [_; N] = std::array::from_fn(|n| {
            let count = run.saturating_sub((piece.vector + n) * lanes).min(lanes);
            F::V::<S>::first(s, count)
        });
        let row = patches.pixel_row();
        let first_pixel = piece.row * row + piece.vector * lanes;
        let last_pixel = first_pixel
            + (height + K - 1).saturating_sub(1) * row
            + width.saturating_sub(1) * patches.pixel();
        assert!(last_pixel + N * lanes <= pixels.len());
        let (windows, pooled_width, bits) = (marked.windows(), marked.pooled.1, marked.row());
        assert_eq!((height, width), (2 * marked.pooled.0, 2 * pooled_width));
        let weights_len = patches.weights_len();
        let weight = weight[piece.weights..].as_ptr();
        for x in 0..width {
            let mut sums = [[zero; N]; K];
            // SAFETY: the winners and the pixels of column x lie in their slices, as checked above; a winner is a channel that
            // was marked, and so has upstream gradients, and weights of which the piece is a part.
            unsafe {
                let mut pixel = pixels.as_mut_ptr().add(first_pixel + x * patches.pixel());
                // The window of this position and of the next one below, whose index in its window is 2 more or less.
                let window = x / 2;
                let winners = marked.winners.as_ptr().add(x % 2 * bits + window);
                let (mut winners, mut winners_below) = (winners, winners.wrapping_add(2 * bits));
                let upstream = upstream.as_ptr().add(window);
                let (mut upstream, mut upstream_below) = (upstream, upstream);
                // One position; the sums of kernel row k are in row (k + PHASE) % K of registers.
                macro_rules! position {
                    ($phase:expr) => {{
                        let mut left =
                            u32::from(*winners) | u32::from(*winners.add(4 * bits)) << BITS;
                        while left != 0 {
                            let channel = left.trailing_zeros() as usize;
                            left &= left - 1;
                            let gradient = F::V::<S>::splat(s, *upstream.add(channel * windows));
                            let weight = weight.add(channel * weights_len);
                            for k in 0..K {
                                for n in 0..N {
                                    let w = F::V::<S>::load_ptr(s, weight.add((k * N + n) * lanes));
                                    let sum = &mut sums[(k + $phase) % K][n];
                                    *sum = gradient.mul_add(w, *sum);
                                }
                            }
                        }
                        for n in 0..N {
                            let to = pixel.add(n * lanes);
                            let sum = sums[$phase % K][n].select(kept[n], zero);
                            (F::V::<S>::load_ptr(s, to) + sum).store_ptr(to);
                        }
                        sums[$phase % K] = [zero; N];
                        pixel = pixel.wrapping_add(row);
                        (winners, winners_below) =
                            (winners_below, winners.wrapping_add(pooled_width));
                        (upstream, upstream_below) =
                            (upstream_below, upstream.wrapping_add(pooled_width));
                    }};
                }
                let mut y = 0;
                while y + K <= height {
                    position!(0);
                    if K > 1 {
                        position!(1);
                    }
                    if K > 2 {
                        position!(2);
                    }
                    if K > 3 {
                        position!(3);
                    }
                    if K > 4 {
                        position!(4);
                    }
                    y += K;
                }
                while y < height {
                    position!(0);
                    let finished = sums[0];
                    for k in 1..K {
                        sums[k - 1] = sums[k];
                    }
                    sums[K - 1] = finished;
                    y += 1;
                }
                for sums in sums.iter().take(K - 1) {
                    for n in 0..N {
                        let to = pixel.add(n * lanes);
                        let sum = sums[n].select(kept[n], zero);
                        (F::V::<S>::load_ptr(s, to) + sum).store_ptr(to);
                    }
                    pixel = pixel.wrapping_add(row);
                }
            }
        }
    }
}
