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

/// What a block of output channels computed, and its gradients. By channel, then window.
#[derive(Clone, Copy)]
pub(super) struct Results<'a, F> {
    pub(super) channels: usize,
    /// Indices of winners in their windows, and behind the last room for a vector.
    pub(super) winners: &'a [u8],
    pub(super) y: &'a [F],
    pub(super) upstream: &'a [F],
}

impl<F: Float> Results<'_, F> {
    /// Checks the lengths for `windows` a channel.
    pub(super) fn check(&self, windows: usize) {
        let len = self.channels * windows;
        assert!(self.winners.len() >= len + MAX_LANES);
        assert!(self.y.len() >= len && self.upstream.len() >= len);
    }

    /// Result, upstream gradient and winner of window `j` of channel `n` and of those behind it; 0 behind the last window.
    ///
    /// # Safety
    /// [`Self::check`] passed for `windows`, `n` is a channel and `j` a window.
    #[inline(always)]
    pub(super) unsafe fn load<S: Simd>(
        &self,
        s: S,
        windows: usize,
        n: usize,
        j: usize,
    ) -> (F::V<S>, F::V<S>, F::V<S>) {
        let lanes = F::V::<S>::LANES;
        let columns = lanes.min(windows - j);
        let at = n * windows + j;
        // SAFETY: `columns` windows of the channel are left, and the winners have room for a vector behind the last.
        unsafe {
            let load = |p: *const F| match columns == lanes {
                true => F::V::<S>::load_ptr(s, p.add(at)),
                false => F::V::<S>::load_partial_ptr(s, p.add(at), columns, F::ZERO),
            };
            (
                load(self.y.as_ptr()),
                load(self.upstream.as_ptr()),
                F::V::<S>::load_u8_ptr(s, self.winners.as_ptr().add(at)),
            )
        }
    }
}

/// Where the gradient of a result passes on. NaN counts as passed by relu.
#[inline(always)]
pub(super) fn is_entry<V: Vector>(s: V::Token, result: V, upstream: V) -> V::Mask {
    let zero = V::splat(s, V::Elem::ZERO);
    !result.le(zero) & !upstream.eq(zero)
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

    /// Windows of a channel.
    fn windows(&self) -> usize {
        self.room - MAX_LANES - MOST_AT_ONCE
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
    pub(super) results: Results<'a, F>,
    /// A vector for each channel of the block.
    pub(super) bias: &'a mut [F],
    pub(super) entries: &'a mut Entries<F>,
}

impl<F: Float> ListEntries<'_, F> {
    pub(super) fn run(self, isa: Isa) {
        let windows = self.entries.windows();
        self.results.check(windows);
        assert!(self.corners.len() >= windows + MAX_LANES);
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
        let (windows, results) = (self.entries.windows(), self.results);
        let Entries {
            room,
            counts,
            gradients,
            positions,
        } = self.entries;
        let lists = gradients
            .chunks_exact_mut(*room)
            .zip(positions.chunks_exact_mut(*room))
            .zip(counts);
        let biases = self.bias.chunks_exact_mut(lanes).take(results.channels);
        for (n, (bias, ((gradients, positions), total))) in biases.zip(lists).enumerate() {
            let mut bias_sum = F::V::<S>::load(s, bias);
            let mut count = 0;
            for j in (0..windows).step_by(lanes) {
                // SAFETY: `run` checked the results, and that the corners have room for a vector behind the last. `count` is at
                // most j, so that vectors from there end before windows + MAX_LANES, which both lists hold.
                unsafe {
                    let (result, upstream, winner) = results.load(s, windows, n, j);
                    let chosen = is_entry(s, result, upstream);
                    let gradient = upstream.select(chosen, zero);
                    bias_sum = bias_sum + gradient;
                    let position = F::V::<S>::load_ptr(s, self.corners.as_ptr().add(j))
                        + winner
                        + down.select(winner.ge(two), zero);
                    position.compress_u32_ptr(chosen, positions.as_mut_ptr().add(count));
                    count += gradient.compress_ptr(chosen, gradients.as_mut_ptr().add(count));
                }
            }
            bias_sum.store(bias);
            gradients[count..][..MOST_AT_ONCE].fill(F::ZERO);
            positions[count..][..MOST_AT_ONCE].fill(zeros);
            *total = count;
        }
    }
}
