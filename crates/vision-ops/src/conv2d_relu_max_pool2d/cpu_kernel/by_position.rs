//! The input gradient of the sparse backward pass: entries sorted by position, and sums that stay in registers.
//!
//! A column of positions is gone through from top to bottom. The patches of neighbouring rows overlap in all but one
//! kernel row, so that their sums move up by one row of registers from position to position, and the row that no later
//! position reaches is added to the pixels. No sum waits in memory for the next entry.

use candle_simd::{Float, Isa, Kernel, Simd, Vector};

use super::entries::Entries;
use super::patches::{Patches, Piece};
use crate::kernels::scratch::Scratch;

/// Which output channels of a block have an entry at each position, and their gradients.
pub(super) struct ByPosition<F: Float> {
    /// A bit for each channel.
    winners: Vec<u16>,
    /// By channel, then position.
    gradients: Scratch<F>,
}

impl<F: Float> ByPosition<F> {
    /// For `positions` positions and at most `channels` output channels.
    pub(super) fn new(positions: usize, channels: usize) -> Self {
        assert!(channels <= u16::BITS as usize);
        Self {
            winners: vec![0; positions],
            gradients: Scratch::dirty(positions * channels),
        }
    }

    /// Sorts the entries of the first `channels` output channels.
    pub(super) fn sort(&mut self, entries: &Entries<F>, channels: usize) {
        let positions = self.winners.len();
        assert!(channels * positions <= self.gradients.len());
        self.winners.fill(0);
        let of_channels = self.gradients.chunks_exact_mut(positions.max(1));
        for (n, of_channel) in of_channels.take(channels).enumerate() {
            let list = entries.list(n);
            let entries = list.gradients.iter().zip(list.positions);
            for (&gradient, &position) in entries.take(list.count) {
                let position = position as usize;
                // SAFETY: an entry's position is one of the map.
                unsafe {
                    *self.winners.get_unchecked_mut(position) |= 1 << n;
                    *of_channel.get_unchecked_mut(position) = gradient;
                }
            }
        }
    }

    /// Adds the input gradient to `pixels`, laid out as [`Patches::gather`] takes them. `weight` holds the weights of the
    /// output channels that were sorted, [`Patches::weights_len`] each.
    pub(super) fn add_input_gradient(
        &self,
        isa: Isa,
        patches: &Patches,
        weight: &[F],
        pixels: &mut [F],
    ) {
        for piece in &patches.pieces {
            let sweep = Sweep {
                entries: self,
                patches,
                piece,
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

struct Sweep<'a, F: Float> {
    entries: &'a ByPosition<F>,
    patches: &'a Patches,
    piece: &'a Piece,
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
            entries,
            patches,
            piece,
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
        let positions = entries.winners.len();
        assert!(positions >= height * width);
        let weights_len = patches.weights_len();
        let weight = weight[piece.weights..].as_ptr();
        for x in 0..width {
            let mut sums = [[zero; N]; K];
            // SAFETY: the winners and the pixels of column x lie in their slices, as checked above; a winner is a channel that
            // was sorted, and so has gradients, and weights of which the piece is a part.
            unsafe {
                let mut pixel = pixels.as_mut_ptr().add(first_pixel + x * patches.pixel());
                let mut winners = entries.winners.as_ptr().add(x);
                let mut gradients = entries.gradients.as_ptr().add(x);
                // One position; the sums of kernel row k are in row (k + PHASE) % K of registers.
                macro_rules! position {
                    ($phase:expr) => {{
                        let mut left = u32::from(*winners);
                        while left != 0 {
                            let channel = left.trailing_zeros() as usize;
                            left &= left - 1;
                            let gradient = F::V::<S>::splat(s, *gradients.add(channel * positions));
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
                        winners = winners.wrapping_add(width);
                        gradients = gradients.wrapping_add(width);
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
