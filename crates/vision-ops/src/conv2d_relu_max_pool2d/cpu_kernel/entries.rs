//! The positions that backward visits: for each output channel those that won their window and were positive.

use candle_simd::{Float, Isa, Kernel, MAX_LANES, Simd, Vector};

use super::super::Geometry;
use super::patches::Patches;
use crate::kernels::scratch::Scratch;

/// Entries that one turn of a loop takes at most; lists are filled up with this many that add zeros.
pub(super) const MOST_AT_ONCE: usize = 8;

/// For each pooled position, the number of its window's first position. These are whole numbers below 2^24, which both
/// float types hold, so that they are computed with the vector operations of gradients.
pub(super) fn corners<F: Float>(geometry: &Geometry, patches: &Patches) -> Vec<F> {
    let (height, width) = geometry.pool.output;
    let mut corners = Vec::with_capacity(geometry.pooled() + MAX_LANES);
    for i in 0..height {
        for j in 0..width {
            let position = 2 * i * patches.positions + 2 * j;
            corners.push(F::from_f64(position as f64));
        }
    }
    corners.resize(geometry.pooled() + MAX_LANES, F::ZERO);
    corners
}

/// Lists of a block of output channels.
pub(super) struct Entries<F: Float> {
    /// Room of a list: whole vectors are written to it, and zeros behind the last entry.
    room: usize,
    counts: Vec<usize>,
    gradients: Scratch<F>,
    positions: Vec<u32>,
}

/// One channel's entries.
#[derive(Clone, Copy)]
pub(super) struct List<'a, F> {
    pub(super) count: usize,
    /// `count` gradients and positions, then [`MOST_AT_ONCE`] gradients of 0 at [`Patches::zeros`].
    pub(super) gradients: &'a [F],
    pub(super) positions: &'a [u32],
}

impl<F: Float> Entries<F> {
    /// For blocks of at most `channels`.
    pub(super) fn new(geometry: &Geometry, channels: usize) -> Self {
        let room = geometry.pooled() + MAX_LANES + MOST_AT_ONCE;
        Self {
            room,
            counts: vec![0; channels],
            gradients: Scratch::dirty(channels * room),
            positions: vec![0; channels * room],
        }
    }

    /// The list of the block's channel `n`.
    #[inline(always)]
    pub(super) fn list(&self, n: usize) -> List<'_, F> {
        let part = n * self.room..(n + 1) * self.room;
        List {
            count: self.counts[n],
            gradients: &self.gradients[part.clone()],
            positions: &self.positions[part],
        }
    }
}

/// Lists the entries of a block of output channels, and adds their bias gradients.
pub(super) struct ListEntries<'a, F: Float> {
    pub(super) patches: &'a Patches,
    pub(super) corners: &'a [F],
    /// From the block's first channel on.
    pub(super) winners: &'a [u8],
    /// The block's results and their upstream gradients.
    pub(super) y: &'a [F],
    pub(super) upstream: &'a [F],
    /// A vector for each channel of the block.
    pub(super) bias: &'a mut [F],
    pub(super) entries: &'a mut Entries<F>,
}

impl<F: Float> ListEntries<'_, F> {
    pub(super) fn run(self, isa: Isa) {
        isa.dispatch(self);
    }
}

impl<F: Float> Kernel for ListEntries<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let lanes = F::V::<S>::LANES;
        let number = |x: usize| F::V::<S>::splat(s, F::from_f64(x as f64));
        let (zero, two) = (number(0), number(2));
        // Of the winners' indices 0 to 3 the upper two lie a row below.
        let down = number(self.patches.positions - 2);
        let zeros = self.patches.zeros() as u32;
        let Entries {
            room,
            counts,
            gradients,
            positions,
        } = self.entries;
        let pooled = *room - MAX_LANES - MOST_AT_ONCE;
        let lists = gradients
            .chunks_exact_mut(*room)
            .zip(positions.chunks_exact_mut(*room))
            .zip(counts);
        let channels = self
            .y
            .chunks_exact(pooled)
            .zip(self.upstream.chunks_exact(pooled))
            .zip(self.bias.chunks_exact_mut(lanes));
        for (n, (((y, upstream), bias), ((gradients, positions), total))) in
            channels.zip(lists).enumerate()
        {
            let winners = &self.winners[n * pooled..][..pooled + lanes];
            let corners = &self.corners[..pooled + lanes];
            let mut bias_sum = F::V::<S>::load(s, bias);
            let mut count = 0;
            let mut j = 0;
            while j < pooled {
                let columns = lanes.min(pooled - j);
                // SAFETY: `columns` results are left, and the winners and corners have room for a vector behind the
                // last. `count` is at most j, so that vectors from there end before pooled + MAX_LANES, which both
                // lists hold.
                unsafe {
                    let load = |p: *const F| match columns == lanes {
                        true => F::V::<S>::load_ptr(s, p.add(j)),
                        false => F::V::<S>::load_partial_ptr(s, p.add(j), columns, F::ZERO),
                    };
                    let (result, upstream) = (load(y.as_ptr()), load(upstream.as_ptr()));
                    let winner = F::V::<S>::load_u8_ptr(s, winners.as_ptr().add(j));
                    // NaN counts as passed by relu, so its lanes are kept.
                    let passed = !result.le(zero);
                    let gradient = upstream.select(passed, zero);
                    bias_sum = bias_sum + gradient;
                    let position = F::V::<S>::load_ptr(s, corners.as_ptr().add(j))
                        + winner
                        + down.select(winner.ge(two), zero);
                    let chosen = passed & !upstream.eq(zero);
                    position.compress_u32_ptr(chosen, positions.as_mut_ptr().add(count));
                    count += gradient.compress_ptr(chosen, gradients.as_mut_ptr().add(count));
                }
                j += lanes;
            }
            bias_sum.store(bias);
            gradients[count..][..MOST_AT_ONCE].fill(F::ZERO);
            positions[count..][..MOST_AT_ONCE].fill(zeros);
            *total = count;
        }
    }
}
