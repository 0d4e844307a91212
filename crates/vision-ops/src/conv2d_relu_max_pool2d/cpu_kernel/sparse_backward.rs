//! Backward pass that visits only the map positions that won their window and were positive.
//!
//! For each image and output channel these are listed: upstream gradient and offset of the position's patch (see
//! [`Patches`]). Then each entry is a handful of vector operations: its patch times its gradient is added to the channel's
//! weight gradient, which stays in registers for the whole list, and the channel's weights times its gradient are added to
//! the input gradient at the same offset, in the same sweep.
//!
//! Chunks of images, cut by the batch alone, sum their own weight gradients; the chunks are added in order.

use candle_simd::parallel::Disjoint;
use candle_simd::{Float, Isa, Kernel, Simd, Vector};

use super::super::Geometry;
use super::super::fused::{Gradients, Known, Wanted};
use super::halving::{for_image_chunks, winners_len};
use super::patches::Patches;
use crate::element::Element;
use crate::kernels::scratch::Scratch;

/// Entries that one turn of the loop takes at most; lists are filled up with this many that add zeros.
const MOST_AT_ONCE: usize = 8;

/// Bytes of a page.
const PAGE: usize = 4096;

/// What the images of a batch share.
struct Shared<'a, F: Element> {
    geometry: &'a Geometry,
    patches: Patches,
    /// For each pooled position, the offset of its window's first patch. Offsets are whole numbers below 2^24, which both
    /// float types hold, so that lists of them are made with the same vector operations as lists of gradients.
    corners: Vec<F>,
    /// The weights of each output channel in the order of a patch's vectors; empty if no input gradient is wanted.
    weight: Scratch<F>,
    lanes: usize,
}

impl<F: Element> Shared<'_, F> {
    /// Elements of one output channel's weight gradient.
    fn patch_len(&self) -> usize {
        self.patches.vectors.len() * self.lanes
    }

    /// Elements of a chunk's sums: weight gradients, then a vector of bias gradient for each output channel.
    fn sums_len(&self) -> usize {
        self.geometry.conv.out_channels * (self.patch_len() + self.lanes)
    }
}

/// Lanes of an instruction set.
pub(in crate::conv2d_relu_max_pool2d) fn lanes<F: Element>(isa: Isa) -> usize {
    struct Lanes<F>(std::marker::PhantomData<F>);
    impl<F: Float> Kernel for Lanes<F> {
        type Output = usize;
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> usize {
            F::V::<S>::LANES
        }
    }
    isa.dispatch(Lanes::<F>(std::marker::PhantomData))
}

/// The gradients of a batch.
pub(in crate::conv2d_relu_max_pool2d) fn backward<F: Element>(
    isa: Isa,
    geometry: &Geometry,
    wanted: Wanted,
    known: Known<'_, F>,
) -> Gradients<F> {
    let Known {
        winners,
        x,
        weight,
        y,
        upstream,
    } = known;
    let conv = &geometry.conv;
    let lanes = lanes::<F>(isa);
    let patches = Patches::new(geometry, lanes, wanted.x);
    let shared = Shared {
        corners: corners(geometry, &patches),
        weight: if wanted.x {
            patch_weights(geometry, &patches, lanes, weight)
        } else {
            Scratch::zeroed(0)
        },
        geometry,
        patches,
        lanes,
    };
    let sums_len = shared.sums_len();
    let chunks = conv.batch.div_ceil(conv.gradient_chunk());
    let mut sums = vec![F::ZERO; chunks * sums_len];
    let mut x_grad = vec![
        F::ZERO;
        if wanted.x {
            conv.batch * conv.input_len()
        } else {
            0
        }
    ];
    let (sum_parts, x_parts) = (Disjoint::new(&mut sums), Disjoint::new(&mut x_grad));
    let (pooled, kept) = (conv.out_channels * geometry.pooled(), winners_len(geometry));
    for_image_chunks(geometry, |chunk, images| {
        let part = |len: usize| images.start * len..images.end * len;
        // SAFETY: chunks have sums of their own, and images of their own.
        let (sums, x_grad) = unsafe {
            (
                sum_parts.part(chunk * sums_len..(chunk + 1) * sums_len),
                x_parts.part(if wanted.x {
                    part(conv.input_len())
                } else {
                    0..0
                }),
            )
        };
        let len = shared.patches.buffer_len();
        // One buffer for both, with half a page between the same places of the two: a load that lies a whole number of
        // pages behind a store waits for it.
        let apart = len.next_multiple_of(PAGE / size_of::<F>()) + PAGE / 2 / size_of::<F>();
        let mut buffers = Scratch::zeroed(if wanted.x { apart + len } else { len });
        let (seen, added) = buffers.split_at_mut(if wanted.x { apart } else { len });
        isa.dispatch(Chunk {
            shared: &shared,
            x: &x[part(conv.input_len())],
            winners: &winners[part(kept)],
            y: &y[part(pooled)],
            upstream: &upstream[part(pooled)],
            sums,
            x_grad,
            seen,
            added,
            pixels: &mut Scratch::zeroed(if wanted.x {
                shared.patches.pixels_len()
            } else {
                0
            }),
            list: &mut Scratch::dirty(
                2 * (geometry.pooled() + candle_simd::MAX_LANES + MOST_AT_ONCE),
            ),
        });
    });
    let (weight, bias) = add_up(&shared, &sums);
    Gradients {
        x: x_grad,
        weight,
        bias,
    }
}

fn corners<F: Element>(geometry: &Geometry, patches: &Patches) -> Vec<F> {
    let (height, width) = geometry.pool.output;
    let mut corners = Vec::with_capacity(geometry.pooled() + candle_simd::MAX_LANES);
    for i in 0..height {
        for j in 0..width {
            let offset = 2 * i * patches.row_step + 2 * j * patches.column_step;
            corners.push(<F as Float>::from_f64(offset as f64));
        }
    }
    corners.resize(geometry.pooled() + candle_simd::MAX_LANES, F::ZERO);
    corners
}

fn patch_weights<F: Element>(
    geometry: &Geometry,
    patches: &Patches,
    lanes: usize,
    weight: &[F],
) -> Scratch<F> {
    let conv = &geometry.conv;
    let len = patches.vectors.len() * lanes;
    let mut ordered = Scratch::zeroed(conv.out_channels * len);
    let mut from = weight.iter();
    for o in 0..conv.out_channels {
        for c in 0..conv.in_channels {
            for a in 0..conv.kernel.0 {
                for (b, &weight) in (0..conv.kernel.1).zip(&mut from) {
                    ordered[o * len + patches.weight_index(c, a, b)] = weight;
                }
            }
        }
    }
    ordered
}

/// Adds the sums of the chunks in order and brings them into the order of the weights.
fn add_up<F: Element>(shared: &Shared<'_, F>, sums: &[F]) -> (Vec<F>, Vec<F>) {
    let conv = &shared.geometry.conv;
    let mut total = vec![F::ZERO; shared.sums_len()];
    for chunk in sums.chunks_exact(shared.sums_len().max(1)) {
        for (total, &sum) in total.iter_mut().zip(chunk) {
            *total += sum;
        }
    }
    let len = shared.patch_len();
    let mut weight = Vec::with_capacity(conv.weight_len());
    for o in 0..conv.out_channels {
        for c in 0..conv.in_channels {
            for a in 0..conv.kernel.0 {
                weight.extend(
                    (0..conv.kernel.1)
                        .map(|b| total[o * len + shared.patches.weight_index(c, a, b)]),
                );
            }
        }
    }
    let bias = total[conv.out_channels * len..]
        .chunks_exact(shared.lanes)
        .map(|lanes| lanes.iter().fold(F::ZERO, |sum, &x| sum + x))
        .collect();
    (weight, bias)
}

/// A chunk of images and the buffers that they share.
struct Chunk<'a, F: Element> {
    shared: &'a Shared<'a, F>,
    x: &'a [F],
    winners: &'a [u8],
    y: &'a [F],
    upstream: &'a [F],
    sums: &'a mut [F],
    /// Empty if not wanted.
    x_grad: &'a mut [F],
    /// The image as patches, and the gradient alike.
    seen: &'a mut [F],
    added: &'a mut [F],
    pixels: &'a mut [F],
    /// Gradients, then offsets.
    list: &'a mut [F],
}

impl<F: Element> Kernel for Chunk<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let shared = self.shared;
        let conv = &shared.geometry.conv;
        let pooled = shared.geometry.pooled();
        let input = conv.input_len();
        for (n, image) in self.x.chunks_exact(input).enumerate() {
            shared.patches.fill(s, image, self.pixels, self.seen);
            self.added.fill(F::ZERO);
            for channel in 0..conv.out_channels {
                let at = (n * conv.out_channels + channel) * pooled;
                let winners = &self.winners[n * winners_len(shared.geometry) + channel * pooled..];
                let count = self.list_entries(s, channel, at, winners);
                if self.x_grad.is_empty() {
                    self.weight_gradient(s, channel, count);
                } else {
                    self.both_gradients(s, channel, count);
                }
            }
            if !self.x_grad.is_empty() {
                let x_grad = &mut self.x_grad[n * input..][..input];
                shared.patches.gather(s, self.added, self.pixels, x_grad);
                // The image shares the buffer: what is padding there must be zero again.
                self.pixels.fill(F::ZERO);
            }
        }
    }
}

impl<F: Element> Chunk<'_, F> {
    /// Lists one channel's positions that won and were positive, and adds its bias gradient. `at` is where the channel
    /// starts in the results.
    #[inline(always)]
    fn list_entries<S: Simd>(&mut self, s: S, channel: usize, at: usize, winners: &[u8]) -> usize {
        let shared = self.shared;
        let lanes = F::V::<S>::LANES;
        let pooled = shared.geometry.pooled();
        let number = |x: usize| F::V::<S>::splat(s, <F as Float>::from_f64(x as f64));
        let zero = number(0);
        let (right, down) = (
            number(shared.patches.column_step),
            number(shared.patches.row_step),
        );
        let (gradients, offsets) = self.list.split_at_mut(self.list.len() / 2);
        let outputs = shared.geometry.conv.out_channels;
        let bias = &mut self.sums[outputs * shared.patch_len() + channel * lanes..][..lanes];
        let mut bias_sum = F::V::<S>::load(s, bias);
        let mut count = 0;
        for j in (0..pooled).step_by(lanes) {
            let columns = lanes.min(pooled - j);
            let result = F::V::<S>::load_partial(s, &self.y[at + j..][..columns], F::ZERO);
            let upstream = F::V::<S>::load_partial(s, &self.upstream[at + j..][..columns], F::ZERO);
            let bytes = &winners[j..][..lanes];
            // SAFETY: the slice holds a byte a lane; those past the channel's end belong to results read as 0 here.
            let winner = unsafe { F::V::<S>::load_u8_ptr(s, bytes.as_ptr()) };
            // NaN counts as passed by relu, so its lanes are kept.
            let passed = !result.le(zero);
            let gradient = upstream.select(passed, zero);
            bias_sum = bias_sum + gradient;
            let low = winner.ge(number(2));
            let column = (winner - number(2)).select(low, winner);
            let offset =
                F::V::<S>::load(s, &shared.corners[j..]) + down.select(low, zero) + column * right;
            let chosen = passed & !upstream.eq(zero);
            let room = count + lanes;
            debug_assert!(room <= gradients.len());
            // SAFETY: count is at most j, so that a vector from there ends before pooled + MAX_LANES, the length of
            // either half of the list less MOST_AT_ONCE.
            count += unsafe {
                offset.compress_ptr(chosen, offsets.as_mut_ptr().add(count));
                gradient.compress_ptr(chosen, gradients.as_mut_ptr().add(count))
            };
        }
        bias_sum.store(bias);
        gradients[count..count + MOST_AT_ONCE].fill(F::ZERO);
        let zeros = <F as Float>::from_f64(shared.patches.zeros() as f64);
        offsets[count..count + MOST_AT_ONCE].fill(zeros);
        count
    }

    /// Adds the patches of the listed entries, times their gradients, to the channel's weight gradient.
    #[inline(always)]
    fn weight_gradient<S: Simd>(&mut self, s: S, channel: usize, count: usize) {
        let vectors = self.shared.patches.vectors.len();
        let mut v = 0;
        while v < vectors {
            // Few sums are kept several times over, or each multiply-add would wait for the one before.
            // SAFETY: each call takes as many vectors as are left or fewer.
            v += unsafe {
                match (S::ISA == Isa::Avx512, vectors - v) {
                    (true, 10..) => self.weight_sweep::<S, 10, 1>(s, channel, count, v),
                    (_, 5..) => self.weight_sweep::<S, 5, 2>(s, channel, count, v),
                    (_, 4) => self.weight_sweep::<S, 4, 2>(s, channel, count, v),
                    (_, 3) => self.weight_sweep::<S, 3, 3>(s, channel, count, v),
                    (_, 2) => self.weight_sweep::<S, 2, 4>(s, channel, count, v),
                    _ => self.weight_sweep::<S, 1, 8>(s, channel, count, v),
                }
            };
        }
    }

    /// N vectors from `first` on, M entries at a time. Returns N.
    ///
    /// # Safety
    /// The vectors exist, M is at most [`MOST_AT_ONCE`], and the list holds `count` entries made by
    /// [`Self::list_entries`].
    #[inline(always)]
    unsafe fn weight_sweep<S: Simd, const N: usize, const M: usize>(
        &mut self,
        s: S,
        channel: usize,
        count: usize,
        first: usize,
    ) -> usize {
        let lanes = F::V::<S>::LANES;
        let shared = self.shared;
        let zero = F::V::<S>::splat(s, F::ZERO);
        let mut starts = [0; N];
        starts.copy_from_slice(&shared.patches.vectors[first..first + N]);
        let mut sums = [[zero; N]; M];
        // SAFETY: an offset in the list is that of a patch, or of the zeros, in a buffer of `buffer_len`; the list is
        // filled up with MOST_AT_ONCE entries.
        unsafe {
            let (gradients, offsets) = (
                self.list.as_ptr(),
                self.list.as_ptr().add(self.list.len() / 2),
            );
            let mut entry = 0;
            while entry < count {
                for (m, sums) in sums.iter_mut().enumerate() {
                    let gradient = F::V::<S>::splat(s, *gradients.add(entry + m));
                    let patch = self.seen.as_ptr().add(offset(*offsets.add(entry + m)));
                    for (sum, &start) in sums.iter_mut().zip(&starts) {
                        *sum = gradient.mul_add(F::V::<S>::load_ptr(s, patch.add(start)), *sum);
                    }
                }
                entry += M;
            }
        }
        let to = &mut self.sums[channel * shared.patch_len() + first * lanes..][..N * lanes];
        for (n, to) in to.chunks_exact_mut(lanes).enumerate() {
            let mut sum = F::V::<S>::load(s, to);
            for sums in &sums {
                sum = sum + sums[n];
            }
            sum.store(to);
        }
        N
    }

    /// As [`Self::weight_gradient`], and adds the channel's weights times the gradients to the input gradient.
    #[inline(always)]
    fn both_gradients<S: Simd>(&mut self, s: S, channel: usize, count: usize) {
        let vectors = self.shared.patches.vectors.len();
        let mut v = 0;
        while v < vectors {
            // SAFETY: each call takes as many vectors as are left or fewer.
            v += unsafe {
                match (S::ISA == Isa::Avx512, vectors - v) {
                    (true, 10..) => self.both_sweep::<S, 10>(s, channel, count, v),
                    (_, 5..) => self.both_sweep::<S, 5>(s, channel, count, v),
                    (_, 4) => self.both_sweep::<S, 4>(s, channel, count, v),
                    (_, 3) => self.both_sweep::<S, 3>(s, channel, count, v),
                    (_, 2) => self.both_sweep::<S, 2>(s, channel, count, v),
                    _ => self.both_sweep::<S, 1>(s, channel, count, v),
                }
            };
        }
    }

    /// N vectors from `first` on. Returns N.
    ///
    /// # Safety
    /// As [`Self::weight_sweep`], and the input gradient is wanted.
    #[inline(always)]
    unsafe fn both_sweep<S: Simd, const N: usize>(
        &mut self,
        s: S,
        channel: usize,
        count: usize,
        first: usize,
    ) -> usize {
        let lanes = F::V::<S>::LANES;
        let shared = self.shared;
        let at = channel * shared.patch_len() + first * lanes;
        let mut starts = [0; N];
        starts.copy_from_slice(&shared.patches.vectors[first..first + N]);
        let zero = F::V::<S>::splat(s, F::ZERO);
        let (mut weights, mut sums) = ([zero; N], [zero; N]);
        let channel_sums = &mut self.sums[at..at + N * lanes];
        for n in 0..N {
            weights[n] = F::V::<S>::load(s, &shared.weight[at + n * lanes..]);
            sums[n] = F::V::<S>::load(s, &channel_sums[n * lanes..]);
        }
        // SAFETY: an offset in the list is that of a patch in buffers of `buffer_len`, and `added` is one as `seen` is.
        unsafe {
            let (gradients, offsets) = (
                self.list.as_ptr(),
                self.list.as_ptr().add(self.list.len() / 2),
            );
            let (seen, added) = (self.seen.as_ptr(), self.added.as_mut_ptr());
            for entry in 0..count {
                let gradient = F::V::<S>::splat(s, *gradients.add(entry));
                let offset = offset(*offsets.add(entry));
                let (seen, added) = (seen.add(offset), added.add(offset));
                for n in 0..N {
                    sums[n] =
                        gradient.mul_add(F::V::<S>::load_ptr(s, seen.add(starts[n])), sums[n]);
                    let p = added.add(starts[n]);
                    gradient
                        .mul_add(weights[n], F::V::<S>::load_ptr(s, p))
                        .store_ptr(p);
                }
            }
        }
        for (sum, to) in sums.into_iter().zip(channel_sums.chunks_exact_mut(lanes)) {
            sum.store(to);
        }
        N
    }
}

/// An offset of the list as an index.
///
/// # Safety
/// It is a whole number from 0 to 2^24.
#[inline(always)]
unsafe fn offset<F: Float>(x: F) -> usize {
    // SAFETY: the value fits, by the contract above.
    unsafe { x.to_f64().to_int_unchecked::<i64>() as usize }
}
