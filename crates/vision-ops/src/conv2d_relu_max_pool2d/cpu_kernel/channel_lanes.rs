//! Forward kernel whose lanes are output channels: for many channels and narrow maps, such as LeNet's second layer.
//!
//! A block is two map rows by up to ten map columns (five pooled ones): 20 sums in registers, one vector of weights a
//! kernel element. With 16 registers it is three pooled columns, and every input is broadcast from memory inside the
//! multiply-add; with 32, where the kernel is three or five wide, it is broadcast once for the kernel elements of a row.
//! Pooling, relu and winners are computed in registers; a channel block's results are then transposed into rows.
//! Sums start from the bias and run in the order (channel, row, column) of the kernel, as those of `conv2d`.

use std::mem::MaybeUninit;

use candle_simd::{Isa, Kernel, Simd, Vector};

use super::super::Geometry;
use super::halving::{ImagesForward, pool_four, winners_len};
use crate::element::Element;
use crate::kernels::scratch::Scratch;
use crate::kernels::turn::turn;

pub(in crate::conv2d_relu_max_pool2d) struct ChannelLanes<'a, F: Element> {
    geometry: &'a Geometry,
    /// By kernel element, then output channel, filled up with zeros to whole vectors.
    weight: Scratch<F>,
    bias: Vec<F>,
    /// Output channels filled up.
    channels: usize,
    /// For each kernel element, its offset in the padded image.
    taps: Vec<usize>,
}

impl<'a, F: Element> ChannelLanes<'a, F> {
    pub(in crate::conv2d_relu_max_pool2d) fn new(
        isa: Isa,
        geometry: &'a Geometry,
        weight: &[F],
        bias: &[F],
    ) -> Self {
        let conv = &geometry.conv;
        let (depth, outputs) = (conv.taps(), conv.out_channels);
        let channels = outputs.next_multiple_of(candle_simd::MAX_LANES);
        let mut turned = Scratch::zeroed(depth * channels);
        turn(
            isa,
            (outputs, depth),
            (weight, depth),
            (&mut turned, channels),
        );
        let mut padded_bias = bias.to_vec();
        padded_bias.resize(channels, F::ZERO);
        let (rows, columns) = padded(geometry);
        let mut taps = Vec::with_capacity(depth);
        for c in 0..conv.in_channels {
            for a in 0..conv.kernel.0 {
                taps.extend((0..conv.kernel.1).map(|b| (c * rows + a) * columns + b));
            }
        }
        Self {
            geometry,
            weight: turned,
            bias: padded_bias,
            channels,
            taps,
        }
    }
}

/// Rows and columns of the padded image.
fn padded(geometry: &Geometry) -> (usize, usize) {
    let conv = &geometry.conv;
    (
        conv.input.0 + 2 * conv.options.padding.0,
        conv.input.1 + 2 * conv.options.padding.1,
    )
}

// SAFETY: each channel block's results are written channel by channel, up to the last position.
unsafe impl<F: Element> ImagesForward<F> for ChannelLanes<'_, F> {
    fn run(&self, isa: Isa, images: &[F], y: &mut [MaybeUninit<F>], winners: &mut [u8]) {
        let conv = &self.geometry.conv;
        let (rows, columns) = padded(self.geometry);
        let padding = conv.options.padding;
        let mut padded = Scratch::zeroed(match padding {
            (0, 0) => 0,
            _ => conv.in_channels * rows * columns,
        });
        let positions = self
            .geometry
            .pooled()
            .next_multiple_of(candle_simd::MAX_LANES);
        let mut staged = Scratch::zeroed(4 * positions * candle_simd::MAX_LANES);
        let images = images
            .chunks_exact(conv.input_len())
            .zip(y.chunks_exact_mut(conv.out_channels * self.geometry.pooled()))
            .zip(winners.chunks_exact_mut(winners_len(self.geometry)));
        for ((mut image, y), winners) in images {
            if padding != (0, 0) {
                for (index, row) in image.chunks_exact(conv.input.1).enumerate() {
                    let (c, i) = (index / conv.input.0, index % conv.input.0);
                    let at = (c * rows + i + padding.0) * columns + padding.1;
                    padded[at..at + row.len()].copy_from_slice(row);
                }
                image = &padded;
            }
            isa.dispatch(Image {
                shared: self,
                image,
                y,
                winners,
                staged: &mut staged,
            });
        }
    }
}

struct Image<'a, F: Element> {
    shared: &'a ChannelLanes<'a, F>,
    image: &'a [F],
    y: &'a mut [MaybeUninit<F>],
    winners: &'a mut [u8],
    /// Room for results and winners of a channel block, by position and by channel.
    staged: &'a mut [F],
}

impl<F: Element> Kernel for Image<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let lanes = F::V::<S>::LANES;
        let geometry = self.shared.geometry;
        let (height, width) = geometry.pool.output;
        let most = if S::ISA == Isa::Avx512 { 5 } else { 3 };
        // Blocks of nearly equal width, since a narrow one has too few sums to hide the latency of a multiply-add.
        let blocks = width.div_ceil(most);
        for channel in (0..geometry.conv.out_channels).step_by(lanes) {
            for i in 0..height {
                for block in 0..blocks {
                    let j = block * width / blocks;
                    // SAFETY: the block covers pooled columns j to j + N of row i, which exist.
                    unsafe {
                        match (block + 1) * width / blocks - j {
                            1 => self.block::<S, 1>(s, channel, i, j),
                            2 => self.block::<S, 2>(s, channel, i, j),
                            3 => self.block::<S, 3>(s, channel, i, j),
                            4 => self.block::<S, 4>(s, channel, i, j),
                            _ => self.block::<S, 5>(s, channel, i, j),
                        }
                    }
                }
            }
            self.write_rows(s, channel);
        }
    }
}

impl<F: Element> Image<'_, F> {
    /// N pooled columns from `j` on of pooled row `i`, for the channels from `channel` on.
    ///
    /// # Safety
    /// The columns and the row exist, and `channel` is a multiple of the lanes below the number of channels.
    #[inline(always)]
    unsafe fn block<S: Simd, const N: usize>(&mut self, s: S, channel: usize, i: usize, j: usize) {
        let lanes = F::V::<S>::LANES;
        let shared = self.shared;
        let (_, columns) = padded(shared.geometry);
        let pooled = shared.geometry.pooled();
        let positions = pooled.next_multiple_of(candle_simd::MAX_LANES);
        let zero = F::V::<S>::splat(s, F::ZERO);
        // SAFETY: map position (2 * i + 1, 2 * (j + N) - 1) exists, so every kernel element of it lies in the padded
        // image. Weights and bias are filled up to whole vectors of channels. Position i * width + j + n is below
        // `pooled`, and `staged` holds two vectors for each.
        unsafe {
            let bias = F::V::<S>::load_ptr(s, shared.bias.as_ptr().add(channel));
            let mut upper = [[bias; 2]; N];
            let mut lower = [[bias; 2]; N];
            let image = self.image.as_ptr().add(2 * i * columns + 2 * j);
            let mut weight = shared.weight.as_ptr().add(channel);
            macro_rules! rows_of_kernel {
                ($width:literal) => {
                    self.rows::<S, N, $width>(s, image, weight, &mut upper, &mut lower)
                };
            }
            match (S::ISA == Isa::Avx512, shared.geometry.conv.kernel.1) {
                (true, 3) => rows_of_kernel!(3),
                (true, 5) => rows_of_kernel!(5),
                _ => {
                    for &tap in &shared.taps {
                        let factor = F::V::<S>::load_ptr(s, weight);
                        let (x, below) = (image.add(tap), image.add(tap + columns));
                        for n in 0..N {
                            for b in 0..2 {
                                let at = 2 * n + b;
                                upper[n][b] =
                                    F::V::<S>::splat(s, *x.add(at)).mul_add(factor, upper[n][b]);
                                lower[n][b] = F::V::<S>::splat(s, *below.add(at))
                                    .mul_add(factor, lower[n][b]);
                            }
                        }
                        weight = weight.add(shared.channels);
                    }
                }
            }
            let width = shared.geometry.pool.output.1;
            for n in 0..N {
                let ([a, b], [c, d]) = (upper[n], lower[n]);
                let (max, winner) = pool_four(s, [a, b, c, d]);
                let at = (i * width + j + n) * lanes;
                let staged = self.staged.as_mut_ptr();
                // `max` returns its argument where either is NaN, so NaN stays.
                zero.max(max).store_ptr(staged.add(at));
                winner.store_ptr(staged.add(positions * lanes + at));
            }
        }
    }

    /// Adds the products of all kernel elements, K to a kernel row. A pixel is broadcast once for the kernel elements of a
    /// row that see it, so that loads are a third of the multiply-adds. For each sum the elements come in the order of the
    /// kernel all the same.
    ///
    /// # Safety
    /// As [`Self::block`], whose windows `image` and `weight` are for; kernel rows have K elements.
    #[inline(always)]
    unsafe fn rows<S: Simd, const N: usize, const K: usize>(
        &self,
        s: S,
        image: *const F,
        mut weight: *const F,
        upper: &mut [[F::V<S>; 2]; N],
        lower: &mut [[F::V<S>; 2]; N],
    ) {
        let shared = self.shared;
        let (_, columns) = padded(shared.geometry);
        // SAFETY: the taps of a kernel row are neighbours, and the caller vouches for windows and weights.
        unsafe {
            for row in shared.taps.chunks_exact(K) {
                let x = image.add(row[0]);
                let below = x.add(columns);
                let factors: [_; K] = std::array::from_fn(|b| {
                    F::V::<S>::load_ptr(s, weight.add(b * shared.channels))
                });
                // Written out: indices have to be known where sums are to stay in registers.
                macro_rules! pixels {
                    ($($at:literal)*) => {$(
                        if $at + 1 < 2 * N + K {
                            let high = F::V::<S>::splat(s, *x.add($at));
                            let low = F::V::<S>::splat(s, *below.add($at));
                            for b in 0..K {
                                if b <= $at && $at < 2 * N + b {
                                    let at = ($at - b) % (2 * N);
                                    let (n, side) = (at / 2, at % 2);
                                    upper[n][side] = high.mul_add(factors[b], upper[n][side]);
                                    lower[n][side] = low.mul_add(factors[b], lower[n][side]);
                                }
                            }
                        }
                    )*};
                }
                pixels!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
                weight = weight.add(K * shared.channels);
            }
        }
    }

    /// Transposes what is staged for the channels from `channel` on and writes the rows of results and winners.
    #[inline(always)]
    fn write_rows<S: Simd>(&mut self, s: S, channel: usize) {
        let lanes = F::V::<S>::LANES;
        let geometry = self.shared.geometry;
        let pooled = geometry.pooled();
        let positions = pooled.next_multiple_of(candle_simd::MAX_LANES);
        let (by_position, by_channel) = self.staged.split_at_mut(2 * positions * lanes);
        let by_channel = &mut by_channel[..2 * positions * lanes];
        for at in (0..2 * positions).step_by(lanes) {
            let (kind, position) = (at / positions, at % positions);
            // SAFETY: `positions` is a multiple of the lanes, so the block lies inside one kind, results or winners, of
            // both buffers, which are distinct.
            unsafe {
                let from = by_position.as_ptr().add(at * lanes);
                let to = by_channel
                    .as_mut_ptr()
                    .add(kind * positions * lanes + position);
                F::V::<S>::transpose_ptr(s, from, lanes, to, positions);
            }
        }
        let (results, winners) = by_channel.split_at(positions * lanes);
        for n in 0..lanes.min(geometry.conv.out_channels - channel) {
            let first = (channel + n) * pooled;
            for j in (0..pooled).step_by(lanes) {
                let count = lanes.min(pooled - j);
                let result = F::V::<S>::load(s, &results[n * positions + j..]);
                let winner = F::V::<S>::load(s, &winners[n * positions + j..]);
                let y = &mut self.y[first + j..][..count];
                let bytes = &mut self.winners[first + j..][..lanes];
                // SAFETY: the slices hold `count` results, at most a vector, and a byte a lane; bytes past the channel's
                // end are written again by the next channel or lie in the room behind the last.
                unsafe {
                    result.store_partial_ptr(y.as_mut_ptr().cast(), count);
                    winner.store_u8_ptr(bytes.as_mut_ptr());
                }
            }
        }
    }
}
