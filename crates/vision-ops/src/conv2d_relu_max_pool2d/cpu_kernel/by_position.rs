//! The input gradient of the sparse backward pass: entries sorted by position, and sums that stay in registers.
//!
//! A column of positions is gone through from top to bottom. The patches of neighbouring rows overlap in all but one
//! kernel row, so that their sums move up by one row of registers from position to position, and the row that no later
//! position reaches is added to the pixels. No sum waits in memory for the next entry.

use candle_simd::{Float, Isa, Kernel, Simd, Vector};

use super::entries::Entries;
use super::patches::{Patches, Piece};

/// Entries of a block of output channels, by position.
pub(super) struct ByPosition<F> {
    /// The most entries that a position has.
    channels: usize,
    /// How many entries each position has.
    counts: Vec<u32>,
    /// For each position room for `channels` entries.
    slots: Vec<Slot<F>>,
}

#[derive(Clone, Copy)]
struct Slot<F> {
    gradient: F,
    /// Where the weights of the output channel start, among those of the block.
    weights: u32,
}

impl<F: Float> ByPosition<F> {
    /// For `positions` positions and at most `channels` output channels.
    pub(super) fn new(positions: usize, channels: usize) -> Self {
        let empty = Slot {
            gradient: F::ZERO,
            weights: 0,
        };
        Self {
            channels,
            counts: vec![0; positions],
            slots: vec![empty; positions * channels],
        }
    }

    /// Sorts the entries of the first `channels` output channels; each has `weights_len` weights.
    pub(super) fn sort(&mut self, entries: &Entries<F>, channels: usize, weights_len: usize) {
        assert!(channels <= self.channels);
        self.counts.fill(0);
        for n in 0..channels {
            let list = entries.list(n);
            let weights = (n * weights_len) as u32;
            let entries = list.gradients.iter().zip(list.positions);
            for (&gradient, &position) in entries.take(list.count) {
                let position = position as usize;
                // SAFETY: the entries of a channel are at different positions of the map, so that none has more than
                // `channels`; there is a count and room for so many slots for each.
                unsafe {
                    let count = self.counts.get_unchecked_mut(position);
                    let at = position * self.channels + *count as usize;
                    *count += 1;
                    *self.slots.get_unchecked_mut(at) = Slot { gradient, weights };
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

struct Sweep<'a, F> {
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
        let channels = entries.channels;
        let row = patches.pixel_row();
        let first_pixel = piece.row * row + piece.vector * lanes;
        let last_pixel = first_pixel
            + (height + K - 1).saturating_sub(1) * row
            + width.saturating_sub(1) * patches.pixel();
        assert!(last_pixel + N * lanes <= pixels.len());
        assert!(entries.counts.len() >= height * width);
        let weight = weight[piece.weights..].as_ptr();
        for x in 0..width {
            let mut sums = [[zero; N]; K];
            // SAFETY: the counts, the slots and the pixels of column x lie in their slices, as checked above; a slot that
            // is counted names the weights of a channel, of which the piece is a part.
            unsafe {
                let mut pixel = pixels.as_mut_ptr().add(first_pixel + x * patches.pixel());
                let mut count = entries.counts.as_ptr().add(x);
                let mut slots = entries.slots.as_ptr().add(x * channels);
                // One position; the sums of kernel row k are in row (k + PHASE) % K of registers.
                macro_rules! position {
                    ($phase:expr) => {{
                        let end = slots.add(*count as usize);
                        let mut slot = slots;
                        while slot < end {
                            let gradient = F::V::<S>::splat(s, (*slot).gradient);
                            let weight = weight.add((*slot).weights as usize);
                            for k in 0..K {
                                for n in 0..N {
                                    let w = F::V::<S>::load_ptr(s, weight.add((k * N + n) * lanes));
                                    let sum = &mut sums[(k + $phase) % K][n];
                                    *sum = gradient.mul_add(w, *sum);
                                }
                            }
                            slot = slot.add(1);
                        }
                        for n in 0..N {
                            let to = pixel.add(n * lanes);
                            let sum = sums[$phase % K][n].select(kept[n], zero);
                            (F::V::<S>::load_ptr(s, to) + sum).store_ptr(to);
                        }
                        sums[$phase % K] = [zero; N];
                        pixel = pixel.wrapping_add(row);
                        count = count.wrapping_add(width);
                        slots = slots.wrapping_add(width * channels);
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
