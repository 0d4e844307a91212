//! Forward kernel whose lanes are output channels: for many channels and narrow maps, such as LeNet's second layer.
//!
//! A block is two map rows by up to ten map columns (five pooled ones): 20 sums in registers, one vector of weights a
//! kernel element. Where the kernel is three or five wide, an input is broadcast once for the kernel elements of a row.
//! Pooling, relu and winners are computed in registers; a channel block's results are then transposed into rows.
//!
//! With 16 registers a block is one map row by up to six map columns, for two vectors of channels: twelve sums, for which
//! eight numbers are loaded a kernel element. Two such rows wait in the first-level cache to be pooled. A last vector without
//! another has blocks of two map rows by six map columns instead.
//!
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

impl<F: Element> ChannelLanes<'_, F> {
    /// Pooled positions, filled up to whole vectors.
    fn positions(&self) -> usize {
        self.geometry
            .pooled()
            .next_multiple_of(candle_simd::MAX_LANES)
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
        let positions = self.positions();
        let mut staged = Scratch::zeroed(6 * positions * candle_simd::MAX_LANES);
        let mut map = Scratch::dirty(8 * self.geometry.pool.output.1 * candle_simd::MAX_LANES);
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
                map: &mut map,
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
    /// Room for two rows of the map, of two vectors of channels.
    map: &'a mut [F],
    /// Room for results and winners by position, of two vectors of channels, and by channel, of one.
    staged: &'a mut [F],
}

impl<F: Element> Kernel for Image<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let lanes = F::V::<S>::LANES;
        let outputs = self.shared.geometry.conv.out_channels;
        let mut channel = 0;
        while channel < outputs {
            let vectors = if S::ISA != Isa::Avx512 && channel + lanes < outputs {
                self.two_vectors(s, channel);
                2
            } else {
                self.one_vector(s, channel);
                1
            };
            for n in 0..vectors {
                self.write_rows(s, channel + n * lanes, n);
            }
            channel += vectors * lanes;
        }
    }
}

impl<F: Element> Image<'_, F> {
    /// Results and winners by position, of the vector of channels from `channel` on.
    #[inline(always)]
    fn one_vector<S: Simd>(&mut self, s: S, channel: usize) {
        let (height, width) = self.shared.geometry.pool.output;
        let most = if S::ISA == Isa::Avx512 { 5 } else { 3 };
        // Blocks of nearly equal width, since a narrow one has too few sums to hide the latency of a multiply-add.
        let blocks = width.div_ceil(most);
        for i in 0..height {
            for block in 0..blocks {
                let j = block * width / blocks;
                // SAFETY: the block covers pooled columns j to j + N of row i, which exist, and a vector starts at `channel`.
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
    }

    /// Results and winners by position, of the two vectors of channels from `channel` on.
    #[inline(always)]
    fn two_vectors<S: Simd>(&mut self, s: S, channel: usize) {
        let (height, width) = self.shared.geometry.pool.output;
        let blocks = (2 * width).div_ceil(6);
        for i in 0..height {
            for row in 0..2 {
                for block in 0..blocks {
                    let j = block * 2 * width / blocks;
                    // SAFETY: the block covers columns j to j + N of row 2 * i + row of the map, which exist, and two vectors
                    // start at `channel`.
                    unsafe {
                        match (block + 1) * 2 * width / blocks - j {
                            1 => self.row_block::<S, 1>(s, channel, (2 * i, row), j),
                            2 => self.row_block::<S, 2>(s, channel, (2 * i, row), j),
                            3 => self.row_block::<S, 3>(s, channel, (2 * i, row), j),
                            4 => self.row_block::<S, 4>(s, channel, (2 * i, row), j),
                            5 => self.row_block::<S, 5>(s, channel, (2 * i, row), j),
                            _ => self.row_block::<S, 6>(s, channel, (2 * i, row), j),
                        }
                    }
                }
            }
            self.pool_rows(s, i);
        }
    }

    /// N columns from `j` on of map row `first + row`, for the two vectors of channels from `channel` on: to row `row` of the
    /// two that wait to be pooled.
    ///
    /// # Safety
    /// The columns and the row exist, and `channel` is a multiple of the lanes with more than one vector from it on.
    #[inline(always)]
    unsafe fn row_block<S: Simd, const N: usize>(
        &mut self,
        s: S,
        channel: usize,
        (first, row): (usize, usize),
        j: usize,
    ) {
        let lanes = F::V::<S>::LANES;
        let shared = self.shared;
        let (_, columns) = padded(shared.geometry);
        let to = (row * 2 * shared.geometry.pool.output.1 + j) * 2 * lanes;
        let to = &mut self.map[to..][..N * 2 * lanes];
        // SAFETY: map position (first + row, j + N - 1) exists, so every kernel element of it lies in the padded image.
        // Weights and bias are filled up to whole vectors of channels, of which there are two.
        unsafe {
            let bias = shared.bias.as_ptr().add(channel);
            let bias = [
                F::V::<S>::load_ptr(s, bias),
                F::V::<S>::load_ptr(s, bias.add(lanes)),
            ];
            let mut sums = [bias; N];
            let image = self.image.as_ptr().add((first + row) * columns + j);
            let mut weight = shared.weight.as_ptr().add(channel);
            for &tap in &shared.taps {
                let factors = [
                    F::V::<S>::load_ptr(s, weight),
                    F::V::<S>::load_ptr(s, weight.add(lanes)),
                ];
                let pixels = image.add(tap);
                for (n, sums) in sums.iter_mut().enumerate() {
                    let pixel = F::V::<S>::splat(s, *pixels.add(n));
                    for (sum, &factor) in sums.iter_mut().zip(&factors) {
                        *sum = pixel.mul_add(factor, *sum);
                    }
                }
                weight = weight.add(shared.channels);
            }
            for (sums, to) in sums.iter().zip(to.chunks_exact_mut(2 * lanes)) {
                sums[0].store(to);
                sums[1].store(&mut to[lanes..]);
            }
        }
    }

    /// Pools the two rows of the map that wait, into pooled row `i` of the results and winners by position.
    #[inline(always)]
    fn pool_rows<S: Simd>(&mut self, s: S, i: usize) {
        let lanes = F::V::<S>::LANES;
        let width = self.shared.geometry.pool.output.1;
        let positions = self.shared.positions();
        let zero = F::V::<S>::splat(s, F::ZERO);
        let (upper, lower) = self.map[..8 * width * lanes].split_at(4 * width * lanes);
        let windows = upper
            .chunks_exact(4 * lanes)
            .zip(lower.chunks_exact(4 * lanes));
        for (j, (upper, lower)) in windows.enumerate() {
            for n in 0..2 {
                let element =
                    |row: &[F], column: usize| F::V::<S>::load(s, &row[(2 * column + n) * lanes..]);
                let window = [
                    element(upper, 0),
                    element(upper, 1),
                    element(lower, 0),
                    element(lower, 1),
                ];
                let (max, winner) = pool_four(s, window);
                let staged = &mut self.staged[n * 2 * positions * lanes..][..2 * positions * lanes];
                let (results, winners) = staged.split_at_mut(positions * lanes);
                let at = (i * width + j) * lanes;
                // `max` returns its argument where either is NaN, so NaN stays.
                zero.max(max).store(&mut results[at..]);
                winner.store(&mut winners[at..]);
            }
        }
    }

    /// N pooled columns from `j` on of pooled row `i`, for the channels from `channel` on.
    ///
    /// # Safety
    /// The columns and the row exist, and `channel` is a multiple of the lanes below the number of channels.
    #[inline(always)]
    unsafe fn block<S: Simd, const N: usize>(&mut self, s: S, channel: usize, i: usize, j: usize) {
        let lanes = F::V::<S>::LANES;
        let shared = self.shared;
        let (_, columns) = padded(shared.geometry);
        let positions = shared.positions();
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

    /// Transposes what is staged by position for vector `n` of the channels and writes the rows of results and winners, from
    /// `channel` on.
    #[inline(always)]
    fn write_rows<S: Simd>(&mut self, s: S, channel: usize, n: usize) {
        let lanes = F::V::<S>::LANES;
        let geometry = self.shared.geometry;
        let pooled = geometry.pooled();
        let positions = self.shared.positions();
        let (by_position, by_channel) = self.staged.split_at_mut(4 * positions * lanes);
        let by_position = &by_position[n * 2 * positions * lanes..][..2 * positions * lanes];
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
                let result = F::V::<S>::load(s, &results[n * positions + j..]);
                let winner = F::V::<S>::load(s, &winners[n * positions + j..]);
                let y = &mut self.y[first + j..];
                let bytes = &mut self.winners[first + j..][..lanes];
                // SAFETY: both slices hold what is written to them. What is past the channel's end is written again by the
                // next channel, or lies in the room for bytes behind the last.
                unsafe {
                    match y.len() < lanes {
                        true => result.store_partial_ptr(y.as_mut_ptr().cast(), y.len()),
                        false => result.store_ptr(y.as_mut_ptr().cast()),
                    }
                    winner.store_u8_ptr(bytes.as_mut_ptr());
                }
            }
        }
    }
}
