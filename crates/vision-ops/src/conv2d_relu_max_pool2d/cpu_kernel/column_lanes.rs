//! Forward kernel whose lanes are neighbouring pooled columns: for few channels and wide maps, such as LeNet's first layer.
//!
//! Even and odd columns of the padded image are split, so that the columns `2 * X + k` for neighbouring X are neighbours.
//! Then the four elements of a window are four sums in registers, for up to six output channels at once (24 of 32
//! registers): each kernel element loads four vectors and multiplies them with six broadcast weights. With 16 registers
//! the sums are those of a window's upper row, then of its lower one. Pooling, relu and the winners are computed before
//! anything is written. Sums start from the bias and run in the order (channel, row, column) of the kernel, as those of
//! `conv2d`, so that both find the same equal maxima.

use std::mem::MaybeUninit;

use candle_simd::{Isa, Kernel, Simd, Vector};

use super::super::Geometry;
use super::halving::{ImagesForward, pool_four, prefetch_share, winners_len};
use crate::element::Element;
use crate::kernels::scratch::Scratch;
use crate::kernels::turn::turn;

/// Vectors at the end of a row reach past it by at most this much and half a kernel.
const SLACK: usize = 64;

pub(in crate::conv2d_relu_max_pool2d) struct ColumnLanes<'a, F: Element> {
    geometry: &'a Geometry,
    /// By kernel element, then output channel.
    weight: Scratch<F>,
    bias: &'a [F],
    /// For each kernel element, where the left and the right element of a window's row lie.
    taps: Vec<(usize, usize)>,
    /// Elements of one parity of a row.
    half: usize,
}

impl<'a, F: Element> ColumnLanes<'a, F> {
    pub(in crate::conv2d_relu_max_pool2d) fn new(
        isa: Isa,
        geometry: &'a Geometry,
        weight: &[F],
        bias: &'a [F],
    ) -> Self {
        let conv = &geometry.conv;
        let (depth, outputs) = (conv.taps(), conv.out_channels);
        let mut turned = Scratch::zeroed(depth * outputs);
        turn(
            isa,
            (outputs, depth),
            (weight, depth),
            (&mut turned, outputs),
        );
        let half = half_columns(geometry);
        let rows = conv.input.0 + 2 * conv.options.padding.0;
        let mut taps = Vec::with_capacity(depth);
        for c in 0..conv.in_channels {
            for a in 0..conv.kernel.0 {
                for b in 0..conv.kernel.1 {
                    let row = (c * rows + a) * 2 * half;
                    let column = |column: usize| row + column % 2 * half + column / 2;
                    taps.push((column(b), column(b + 1)));
                }
            }
        }
        Self {
            geometry,
            weight: turned,
            bias,
            taps,
            half,
        }
    }
}

/// Elements of one parity of a padded row.
pub(super) fn half_columns(geometry: &Geometry) -> usize {
    (geometry.conv.input.1 + 2 * geometry.conv.options.padding.1).div_ceil(2)
}

/// Elements that [`split_columns`] writes to, and room for vectors that reach past the last row.
pub(super) fn planes_len(geometry: &Geometry) -> usize {
    let conv = &geometry.conv;
    let rows = conv.input.0 + 2 * conv.options.padding.0;
    conv.in_channels * rows * 2 * half_columns(geometry) + SLACK + conv.kernel.1
}

/// Splits the even from the odd columns of each row of the padded image. What is padding is zero already.
#[inline(always)]
pub(super) fn split_columns<F: Element, S: Simd>(
    s: S,
    geometry: &Geometry,
    image: &[F],
    planes: &mut [F],
) {
    let conv = &geometry.conv;
    let ((height, width), padding) = (conv.input, conv.options.padding);
    let (rows, half) = (height + 2 * padding.0, half_columns(geometry));
    let lanes = F::V::<S>::LANES;
    let vectors = width / (2 * lanes);
    for (c, plane) in image.chunks_exact(height * width).enumerate() {
        for (y, row) in plane.chunks_exact(width).enumerate() {
            let at = (c * rows + y + padding.0) * 2 * half;
            let (even, odd) = planes[at..at + 2 * half].split_at_mut(half);
            // The first column of the image goes to the parity of the padding.
            let (first, second) = match padding.1 % 2 {
                0 => (&mut even[padding.1 / 2..], &mut odd[padding.1 / 2..]),
                _ => (&mut odd[padding.1 / 2..], &mut even[padding.1 / 2 + 1..]),
            };
            for vector in 0..vectors {
                let from = &row[2 * vector * lanes..];
                let low = F::V::<S>::load(s, from);
                let (evens, odds) = low.unzip(F::V::<S>::load(s, &from[lanes..]));
                evens.store(&mut first[vector * lanes..]);
                odds.store(&mut second[vector * lanes..]);
            }
            let done = vectors * lanes;
            let pairs = row[2 * done..].chunks_exact(2);
            for ((pair, first), second) in pairs.zip(&mut first[done..]).zip(&mut second[done..]) {
                *first = pair[0];
                *second = pair[1];
            }
            if width % 2 == 1 {
                first[width / 2] = row[width - 1];
            }
        }
    }
}

// SAFETY: each image's results are written channel by channel, row by row, up to the last column.
unsafe impl<F: Element> ImagesForward<F> for ColumnLanes<'_, F> {
    fn run(&self, isa: Isa, images: &[F], y: &mut [MaybeUninit<F>], winners: &mut [u8]) {
        // Padding, and the lanes past the end of a row, read zeros or numbers of the next row.
        let mut planes = Scratch::zeroed(planes_len(self.geometry));
        isa.dispatch(Images {
            shared: self,
            images,
            y,
            winners,
            planes: &mut planes,
        });
    }
}

struct Images<'a, F: Element> {
    shared: &'a ColumnLanes<'a, F>,
    images: &'a [F],
    y: &'a mut [MaybeUninit<F>],
    winners: &'a mut [u8],
    planes: &'a mut [F],
}

impl<F: Element> Kernel for Images<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let geometry = self.shared.geometry;
        let outputs = geometry.conv.out_channels;
        let mut images = self.images.chunks_exact(geometry.conv.input_len());
        let results = self
            .y
            .chunks_exact_mut(outputs * geometry.pooled())
            .zip(self.winners.chunks_exact_mut(winners_len(geometry)));
        for (y, winners) in results {
            let Some(image) = images.next() else { break };
            split_columns(s, geometry, image, self.planes);
            let mut image = Image {
                shared: self.shared,
                planes: self.planes,
                next: images.clone().next().unwrap_or_default(),
                y,
                winners,
            };
            let mut channel = 0;
            while channel < outputs {
                let left = outputs - channel;
                // SAFETY: the channels from `channel` on, as many as the parameter says, exist; the planes have the
                // length that the taps were made for.
                unsafe {
                    channel += match left {
                        6.. => image.channels::<S, 6>(s, channel),
                        4.. => image.channels::<S, 4>(s, channel),
                        2.. => image.channels::<S, 2>(s, channel),
                        _ => image.channels::<S, 1>(s, channel),
                    };
                }
            }
        }
    }
}

struct Image<'a, F: Element> {
    shared: &'a ColumnLanes<'a, F>,
    planes: &'a [F],
    /// The image after this one, or none.
    next: &'a [F],
    y: &'a mut [MaybeUninit<F>],
    winners: &'a mut [u8],
}

impl<F: Element> Image<'_, F> {
    /// The results of N output channels from `channel` on. Returns N.
    ///
    /// # Safety
    /// The channels exist, and `planes` is as long as [`ColumnLanes::run`] makes it.
    #[inline(always)]
    unsafe fn channels<S: Simd, const N: usize>(&mut self, s: S, channel: usize) -> usize {
        let lanes = F::V::<S>::LANES;
        let shared = self.shared;
        let (height, width) = shared.geometry.pool.output;
        let pooled = height * width;
        debug_assert!(channel + N <= shared.geometry.conv.out_channels);
        for i in 0..height {
            if channel == 0 {
                prefetch_share(self.next, i, height);
            }
            for j in (0..width).step_by(lanes) {
                let count = lanes.min(width - j);
                // SAFETY: window row i reads image rows 2 * i and 2 * i + 1 below the kernel row, which the padded image
                // has; vectors reach less than SLACK past the last. The result and the winners of channel + n start at
                // (channel + n) * pooled; whole vectors are written where they stay inside the channel (what they spoil of
                // later rows is written afterwards), bytes also where they reach into the room behind the last winner.
                unsafe {
                    let row = 2 * shared.half;
                    let planes = self.planes.as_ptr().add(2 * i * row + j);
                    let mut sums = [[F::V::<S>::splat(s, F::ZERO); 4]; N];
                    if S::ISA == Isa::Avx512 {
                        let windows = self.sums::<S, N, 2>(s, channel, planes);
                        for (sums, [[a, b], [c, d]]) in sums.iter_mut().zip(windows) {
                            *sums = [a, b, c, d];
                        }
                    } else {
                        let upper = self.sums::<S, N, 1>(s, channel, planes);
                        let lower = self.sums::<S, N, 1>(s, channel, planes.add(row));
                        for ((sums, [[a, b]]), [[c, d]]) in sums.iter_mut().zip(upper).zip(lower) {
                            *sums = [a, b, c, d];
                        }
                    }
                    // Written out: a loop that the compiler leaves as one would send all sums through memory.
                    macro_rules! write {
                        ($($n:literal)*) => {$(
                            if $n < N {
                                let first = (channel + $n) * pooled;
                                self.write(s, sums[$n % N], first, i * width + j, count);
                            }
                        )*};
                    }
                    write!(0 1 2 3 4 5);
                }
            }
        }
        N
    }

    /// For N output channels from `channel` on the sums of R rows of windows whose first pixel is at `planes`: left and right
    /// element of each.
    ///
    /// # Safety
    /// The channels exist, and the pixels that all kernel elements see of the windows lie in the planes.
    #[inline(always)]
    unsafe fn sums<S: Simd, const N: usize, const R: usize>(
        &self,
        s: S,
        channel: usize,
        planes: *const F,
    ) -> [[[F::V<S>; 2]; R]; N] {
        let shared = self.shared;
        let (row, outputs) = (2 * shared.half, shared.geometry.conv.out_channels);
        let mut sums = [[[F::V::<S>::splat(s, F::ZERO); 2]; R]; N];
        // SAFETY: there is a bias for every output channel, the weights hold `outputs` numbers a kernel element, and the
        // caller vouches for the pixels.
        unsafe {
            for (n, sums) in sums.iter_mut().enumerate() {
                *sums = [[F::V::<S>::splat(s, *shared.bias.get_unchecked(channel + n)); 2]; R];
            }
            let mut weight = shared.weight.as_ptr().add(channel);
            for &(left, right) in &shared.taps {
                let (left, right) = (planes.add(left), planes.add(right));
                let window: [[F::V<S>; 2]; R] = std::array::from_fn(|r| {
                    [
                        F::V::<S>::load_ptr(s, left.add(r * row)),
                        F::V::<S>::load_ptr(s, right.add(r * row)),
                    ]
                });
                for (n, sums) in sums.iter_mut().enumerate() {
                    let factor = F::V::<S>::splat(s, *weight.add(n));
                    for (sums, window) in sums.iter_mut().zip(&window) {
                        for (sum, &x) in sums.iter_mut().zip(window) {
                            *sum = factor.mul_add(x, *sum);
                        }
                    }
                }
                weight = weight.add(outputs);
            }
        }
        sums
    }

    /// Pools the sums of `count` windows and writes results and winners at `at` of the channel that starts at `first`.
    ///
    /// # Safety
    /// The channel exists, and `count` windows from `at` on lie in it.
    #[inline(always)]
    unsafe fn write<V: Vector<Elem = F>>(
        &mut self,
        s: V::Token,
        sums: [V; 4],
        first: usize,
        at: usize,
        count: usize,
    ) {
        let pooled = self.shared.geometry.pooled();
        let (max, winner) = pool_four(s, sums);
        // `max` returns its argument where either is NaN, so NaN stays.
        let result = V::splat(s, F::ZERO).max(max);
        // SAFETY: the caller vouches for `count` places; a whole vector is written where it stays inside the channel, and
        // what lies behind it is kept. Behind the last channel's winners there is room for a vector.
        unsafe {
            let y = self.y.as_mut_ptr().cast::<F>().add(first + at);
            let winners = self.winners.as_mut_ptr().add(first + at);
            if at + V::LANES <= pooled {
                result.store_ptr(y);
                winner.store_u8_ptr(winners);
            } else {
                // No call, such as that for a copy of some bytes: it would send all sums through memory.
                result.store_partial_ptr(y, count);
                let behind = V::load_u8_ptr(s, winners);
                winner
                    .select(V::first(s, count), behind)
                    .store_u8_ptr(winners);
            }
        }
    }
}
