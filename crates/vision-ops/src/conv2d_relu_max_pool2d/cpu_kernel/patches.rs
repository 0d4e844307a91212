//! How one image is laid out for the sparse backward pass: so that what a map position sees is a few whole vectors.
//!
//! The channels of a pixel are neighbours, and so are the pixels of a row. A kernel row of a position is then one run of
//! `kernel columns * channels` elements. Two layouts:
//!
//! - Overlapping (weight gradient alone): runs of neighbouring positions share memory. Where a run would fill only part of a
//!   vector, up to [`MOST_ROWS`] image rows are interleaved as if they were channels (three of LeNet's first layer: 15 of 16
//!   lanes).
//! - Apart (input gradient too): every position of every row has a run of its own, of whole vectors. A gradient laid out
//!   so is summed without two neighbouring positions touching the same vector, which would make each wait for the other's
//!   store; the runs are added up at the end.

use candle_simd::{Float, Simd, Vector};

use super::super::Geometry;

/// Image rows that are interleaved at most.
const MOST_ROWS: usize = 4;

/// Room behind the last element, for vectors that reach past it.
pub(in crate::conv2d_relu_max_pool2d) const SLACK: usize = 64;

/// Offsets and sizes of one layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::conv2d_relu_max_pool2d) struct Patches {
    /// Padded image rows and columns.
    rows: usize,
    columns: usize,
    channels: usize,
    kernel: (usize, usize),
    padding: (usize, usize),
    /// Map rows and columns that pooling looks at.
    map: (usize, usize),
    /// Image rows interleaved.
    interleaved: usize,
    apart: bool,
    /// Elements between neighbouring map columns and map rows.
    pub(in crate::conv2d_relu_max_pool2d) column_step: usize,
    pub(in crate::conv2d_relu_max_pool2d) row_step: usize,
    /// Vectors of a run, and where each vector of a patch starts.
    vectors_a_run: usize,
    pub(in crate::conv2d_relu_max_pool2d) vectors: Vec<usize>,
    lanes: usize,
}

impl Patches {
    /// The layout for vectors of `lanes`.
    pub(in crate::conv2d_relu_max_pool2d) fn new(
        geometry: &Geometry,
        lanes: usize,
        apart: bool,
    ) -> Self {
        let conv = &geometry.conv;
        let (kernel, padding, channels) = (conv.kernel, conv.options.padding, conv.in_channels);
        let vectors_a_run = |rows: usize| (rows * channels * kernel.1).div_ceil(lanes);
        let groups = |rows: usize| kernel.0.div_ceil(rows);
        let most = if apart { 1 } else { MOST_ROWS.min(kernel.0) };
        let interleaved = (1..=most)
            .min_by_key(|&rows| groups(rows) * vectors_a_run(rows))
            .unwrap_or(1);
        let columns = conv.input.1 + 2 * padding.1;
        let map = (2 * geometry.pool.output.0, 2 * geometry.pool.output.1);
        let run = vectors_a_run(interleaved);
        let (column_step, row_step) = match apart {
            true => (run * lanes, map.1 * run * lanes),
            false => {
                let column = interleaved * channels;
                (column, (columns * column).next_multiple_of(lanes))
            }
        };
        let vectors = (0..groups(interleaved))
            .flat_map(|group| (0..run).map(move |v| group * interleaved * row_step + v * lanes))
            .collect();
        Self {
            rows: conv.input.0 + 2 * padding.0,
            columns,
            channels,
            kernel,
            padding,
            map,
            interleaved,
            apart,
            column_step,
            row_step,
            vectors_a_run: run,
            vectors,
            lanes,
        }
    }

    /// Elements of one image: rows of runs, and where rows are interleaved as many more as a group reaches.
    pub(in crate::conv2d_relu_max_pool2d) fn len(&self) -> usize {
        (self.rows + self.interleaved) * self.row_step
    }

    /// An offset from which a whole patch of zeros lies behind [`Self::len`], for entries that fill up a list.
    pub(in crate::conv2d_relu_max_pool2d) fn zeros(&self) -> usize {
        self.len() + SLACK
    }

    /// Elements of a buffer with the image, slack and the zeros.
    pub(in crate::conv2d_relu_max_pool2d) fn buffer_len(&self) -> usize {
        self.zeros() + self.vectors.last().map_or(0, |last| last + self.lanes)
    }

    /// Elements of the interleaved image that [`Self::fill`] goes through when runs lie apart.
    pub(in crate::conv2d_relu_max_pool2d) fn pixels_len(&self) -> usize {
        self.rows * self.columns * self.channels + SLACK
    }

    /// Where weight (channel, row, column) lies among the vectors of a patch.
    pub(in crate::conv2d_relu_max_pool2d) fn weight_index(
        &self,
        c: usize,
        a: usize,
        b: usize,
    ) -> usize {
        let (group, row) = (a / self.interleaved, a % self.interleaved);
        group * self.vectors_a_run * self.lanes + (b * self.interleaved + row) * self.channels + c
    }

    /// Lays out an image. `patches` is [`Self::buffer_len`] long and zero where an earlier call has not written; `pixels`
    /// is [`Self::pixels_len`] long, alike.
    #[inline(always)]
    pub(in crate::conv2d_relu_max_pool2d) fn fill<F: Float, S: Simd>(
        &self,
        s: S,
        image: &[F],
        pixels: &mut [F],
        patches: &mut [F],
    ) {
        if !self.apart {
            self.interleave(image, patches, self.row_step);
            return;
        }
        let pixel_row = self.columns * self.channels;
        self.interleave(image, pixels, pixel_row);
        for y in 0..self.rows {
            for x in 0..self.map.1 {
                for v in 0..self.vectors_a_run {
                    let from = &pixels[y * pixel_row + x * self.channels + v * self.lanes..];
                    let to =
                        &mut patches[y * self.row_step + x * self.column_step + v * self.lanes..];
                    F::V::<S>::load(s, from).store(to);
                }
            }
        }
    }

    /// Writes row y of the padded image so that element (x, row r, channel c) is at `(x * interleaved + r) * channels + c`.
    #[inline(always)]
    fn interleave<F: Float>(&self, image: &[F], to: &mut [F], row_step: usize) {
        let width = self.columns - 2 * self.padding.1;
        let height = self.rows - 2 * self.padding.0;
        let streams = self.interleaved * self.channels;
        // Rows above the image see its first rows as their lower interleaved ones.
        for y in 0..self.rows {
            let row = &mut to[y * row_step + self.padding.1 * streams..][..width * streams];
            let plane = |stream: usize| {
                let y = y + stream / self.channels;
                let inside = y >= self.padding.0 && y < self.padding.0 + height;
                inside.then(|| {
                    let c = stream % self.channels;
                    &image[(c * height + y - self.padding.0) * width..][..width]
                })
            };
            match streams {
                1 => interleave_streams::<F, 1>(row, plane),
                2 => interleave_streams::<F, 2>(row, plane),
                3 => interleave_streams::<F, 3>(row, plane),
                4 => interleave_streams::<F, 4>(row, plane),
                6 => interleave_streams::<F, 6>(row, plane),
                8 => interleave_streams::<F, 8>(row, plane),
                _ => interleave_any(row, streams, plane),
            }
        }
    }

    /// Adds up the runs of a gradient that is laid out apart, and takes the padding off. `pixels` is scratch of
    /// [`Self::pixels_len`].
    #[inline(always)]
    pub(in crate::conv2d_relu_max_pool2d) fn gather<F: Float, S: Simd>(
        &self,
        s: S,
        patches: &[F],
        pixels: &mut [F],
        image: &mut [F],
    ) {
        let pixel_row = self.columns * self.channels;
        pixels.fill(F::ZERO);
        // What lies behind a run's last weight is no gradient.
        let tail = self.channels * self.kernel.1 - (self.vectors_a_run - 1) * self.lanes;
        // Column by column, so that a vector is not loaded again right after it was stored at another offset.
        for x in 0..self.map.1 {
            for y in 0..self.map.0 + self.kernel.0 - 1 {
                for v in 0..self.vectors_a_run {
                    let from =
                        &patches[y * self.row_step + x * self.column_step + v * self.lanes..];
                    let run = match v + 1 == self.vectors_a_run {
                        true => F::V::<S>::load_partial(s, &from[..tail], F::ZERO),
                        false => F::V::<S>::load(s, from),
                    };
                    let to = &mut pixels[y * pixel_row + x * self.channels + v * self.lanes..];
                    (F::V::<S>::load(s, to) + run).store(to);
                }
            }
        }
        let width = self.columns - 2 * self.padding.1;
        let height = self.rows - 2 * self.padding.0;
        for y in 0..height {
            let row = (y + self.padding.0) * pixel_row + self.padding.1 * self.channels;
            let row = &pixels[row..][..width * self.channels];
            for c in 0..self.channels {
                let to = &mut image[(c * height + y) * width..][..width];
                for (to, pixel) in to.iter_mut().zip(row.chunks_exact(self.channels)) {
                    *to = pixel[c];
                }
            }
        }
    }
}

/// `row[x * N + n] = stream(n)[x]`, 0 where there is no such stream. With N known the compiler shuffles vectors.
#[inline(always)]
fn interleave_streams<'a, F: Float, const N: usize>(
    row: &mut [F],
    stream: impl Fn(usize) -> Option<&'a [F]>,
) {
    let mut streams: [&[F]; N] = [&[]; N];
    let mut whole = true;
    for (n, to) in streams.iter_mut().enumerate() {
        match stream(n) {
            Some(from) => *to = from,
            None => whole = false,
        }
    }
    if !whole {
        interleave_any(row, N, stream);
        return;
    }
    let width = row.len() / N;
    for from in &mut streams {
        *from = &from[..width];
    }
    for (x, pixel) in row.chunks_exact_mut(N).enumerate() {
        for (to, from) in pixel.iter_mut().zip(&streams) {
            *to = from[x];
        }
    }
}

#[inline(always)]
fn interleave_any<'a, F: Float>(
    row: &mut [F],
    count: usize,
    stream: impl Fn(usize) -> Option<&'a [F]>,
) {
    for n in 0..count {
        let pixels = row.chunks_exact_mut(count);
        match stream(n) {
            Some(from) => pixels.zip(from).for_each(|(pixel, &x)| pixel[n] = x),
            None => pixels.for_each(|pixel| pixel[n] = F::ZERO),
        }
    }
}
