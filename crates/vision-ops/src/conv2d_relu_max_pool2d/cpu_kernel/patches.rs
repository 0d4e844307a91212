//! How one image is laid out for the sparse backward pass: so that what a map position sees is a few whole vectors.
//!
//! The channels of a pixel are neighbours, and so are the pixels of a row. A kernel row of a position is then one run of
//! `kernel columns * channels` elements. Two layouts:
//!
//! - Overlapping (weight gradient alone): runs of neighbouring positions share memory. Where a run would fill only part of a
//!   vector, up to [`MOST_ROWS`] image rows are interleaved as if they were channels (three of LeNet's first layer: 15 of 16
//!   lanes).
//! - Apart (input gradient too): every position of every row has a run of its own, of whole vectors on cache lines, since a
//!   patch is loaded once for each output channel that won there.
//!
//! Positions are numbered row by row, and a patch starts at its number times [`Patches::step`]. A patch is a grid of kernel
//! rows (or interleaved groups of them) by vectors, cut into [`Piece`]s that fit the registers.

use std::mem::MaybeUninit;

use candle_simd::{Float, Isa, Kernel, Simd, Vector};

use super::super::Geometry;
use super::streams::{Planes, Rows, interleave, part};

/// Image rows that are interleaved at most.
const MOST_ROWS: usize = 4;

/// Room behind the last element, for vectors that reach past it.
pub(in crate::conv2d_relu_max_pool2d) const SLACK: usize = 64;

/// Kernel rows and vectors of a run that a piece has at most.
const MOST_OF_A_PIECE: (usize, usize) = (5, 2);

/// A part of a patch that is kept in registers: kernel rows (or groups of them) by vectors of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::conv2d_relu_max_pool2d) struct Piece {
    pub(in crate::conv2d_relu_max_pool2d) row: usize,
    pub(in crate::conv2d_relu_max_pool2d) rows: usize,
    pub(in crate::conv2d_relu_max_pool2d) vector: usize,
    pub(in crate::conv2d_relu_max_pool2d) vectors: usize,
    /// Where its weights start among those of a channel, which lie piece by piece, row by row.
    pub(in crate::conv2d_relu_max_pool2d) weights: usize,
}

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
    pub(in crate::conv2d_relu_max_pool2d) map: (usize, usize),
    /// Image rows interleaved.
    interleaved: usize,
    apart: bool,
    /// Positions in a row, and elements between neighbouring ones.
    pub(in crate::conv2d_relu_max_pool2d) positions: usize,
    pub(in crate::conv2d_relu_max_pool2d) step: usize,
    /// Vectors of a run.
    run: usize,
    pub(in crate::conv2d_relu_max_pool2d) pieces: Vec<Piece>,
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
            .min_by_key(|&rows| groups(rows) * vectors_a_run(rows) + usize::from(rows > 1))
            .unwrap_or(1);
        let columns = conv.input.1 + 2 * padding.1;
        let map = (2 * geometry.pool.output.0, 2 * geometry.pool.output.1);
        let run = vectors_a_run(interleaved);
        let (positions, step) = match apart {
            true => (map.1, run * lanes),
            false => (columns, interleaved * channels),
        };
        Self {
            rows: conv.input.0 + 2 * padding.0,
            columns,
            channels,
            kernel,
            padding,
            map,
            interleaved,
            apart,
            positions,
            step,
            run,
            pieces: pieces(groups(interleaved), run, lanes),
            lanes,
        }
    }

    /// Whether the image has elements that are padding.
    pub(in crate::conv2d_relu_max_pool2d) fn is_padded(&self) -> bool {
        self.padding != (0, 0)
    }

    /// Elements between neighbouring rows of positions.
    fn row_step(&self) -> usize {
        self.positions * self.step
    }

    /// Elements from one kernel row of a patch, or interleaved group of them, to the next.
    pub(in crate::conv2d_relu_max_pool2d) fn group_step(&self) -> usize {
        self.interleaved * self.row_step()
    }

    /// Elements of one image: rows of runs, and where rows are interleaved as many more as a group reaches.
    fn len(&self) -> usize {
        (self.rows + self.interleaved) * self.row_step()
    }

    /// The number of a position behind the image whose patch is zeros, for entries that fill up a list.
    pub(in crate::conv2d_relu_max_pool2d) fn zeros(&self) -> usize {
        (self.len() + SLACK).div_ceil(self.step)
    }

    /// Elements of a buffer with the image, slack and the zeros.
    pub(in crate::conv2d_relu_max_pool2d) fn buffer_len(&self) -> usize {
        let groups = self.kernel.0.div_ceil(self.interleaved);
        self.zeros() * self.step + (groups - 1) * self.group_step() + self.run * self.lanes
    }

    /// Elements of a channel's weights.
    pub(in crate::conv2d_relu_max_pool2d) fn weights_len(&self) -> usize {
        self.kernel.0.div_ceil(self.interleaved) * self.run * self.lanes
    }

    /// Elements of the image before runs are laid out apart, and of its gradient.
    pub(in crate::conv2d_relu_max_pool2d) fn pixels_len(&self) -> usize {
        self.rows * self.pixel_row() + SLACK
    }

    /// Elements of a row of these.
    pub(in crate::conv2d_relu_max_pool2d) fn pixel_row(&self) -> usize {
        self.columns * self.channels
    }

    /// Elements of a pixel of these.
    pub(in crate::conv2d_relu_max_pool2d) fn pixel(&self) -> usize {
        self.channels
    }

    /// Elements of a run that are seen, the rest of its last vector being none of a patch.
    pub(in crate::conv2d_relu_max_pool2d) fn run_len(&self) -> usize {
        self.kernel.1 * self.interleaved * self.channels
    }

    /// Where each weight of an output channel lies among those of [`Self::weights_len`], in the order of the weight tensor:
    /// input channel, row, column.
    pub(in crate::conv2d_relu_max_pool2d) fn weight_order(&self) -> Vec<usize> {
        let (rows, columns) = self.kernel;
        let mut order = Vec::with_capacity(self.channels * rows * columns);
        for c in 0..self.channels {
            for a in 0..rows {
                order.extend((0..columns).map(|b| self.weight_index(c, a, b)));
            }
        }
        order
    }

    /// Where weight (channel, row, column) lies among those of an output channel.
    fn weight_index(&self, c: usize, a: usize, b: usize) -> usize {
        let (group, row) = (a / self.interleaved, a % self.interleaved);
        let at = (b * self.interleaved + row) * self.channels + c;
        let (vector, lane) = (at / self.lanes, at % self.lanes);
        let piece = self
            .pieces
            .iter()
            .rev()
            .find(|piece| piece.row <= group && piece.vector <= vector);
        piece.map_or(0, |piece| {
            let vector = (group - piece.row) * piece.vectors + vector - piece.vector;
            piece.weights + vector * self.lanes + lane
        })
    }

    /// Lays out an image. `patches` is [`Self::buffer_len`] long and zero where an earlier call has not written; `pixels`
    /// is [`Self::pixels_len`] long, alike.
    pub(in crate::conv2d_relu_max_pool2d) fn fill<F: Float>(
        &self,
        isa: Isa,
        image: &[F],
        pixels: &mut [F],
        patches: &mut [F],
    ) {
        isa.dispatch(Fill {
            layout: self,
            image,
            pixels,
            patches,
        });
    }

    /// Writes row y of the padded image so that element (x, row r, channel c) is at `(x * interleaved + r) * channels + c`.
    #[inline(always)]
    fn interleave<F: Float, S: Simd>(&self, s: S, image: &[F], to: &mut [F], row_step: usize) {
        let width = self.columns - 2 * self.padding.1;
        let height = self.rows - 2 * self.padding.0;
        let (above, channels) = (self.padding.0, self.channels);
        if self.padding.1 == 0 && self.interleaved == 1 {
            // Rows follow one another without a gap: one long row.
            let plane = height * width;
            let to = &mut to[above * row_step..][..plane * channels];
            let long = Rows {
                count: 1,
                width: plane,
                step: 0,
                streams: (1, channels),
            };
            interleave(s, to, long, |_, _, c| Some(&image[c * plane..][..plane]));
            return;
        }
        let left = self.padding.1 * self.interleaved * channels;
        let rows = Rows {
            count: self.rows,
            width,
            step: row_step,
            streams: (self.interleaved, channels),
        };
        // Rows above the image see its first rows as their lower interleaved ones.
        interleave(s, &mut to[left..], rows, |y, r, c| {
            let y = (y + r).checked_sub(above).filter(|&y| y < height)?;
            Some(&image[(c * height + y) * width..][..width])
        });
    }

    /// Takes the gradient of an image from that of its pixels, without the padding. Writes every element of `image`.
    pub(in crate::conv2d_relu_max_pool2d) fn gather<F: Float>(
        &self,
        isa: Isa,
        pixels: &[F],
        image: &mut [MaybeUninit<F>],
    ) {
        isa.dispatch(Gather {
            layout: self,
            pixels,
            image,
        });
    }
}

struct Fill<'a, F> {
    layout: &'a Patches,
    image: &'a [F],
    pixels: &'a mut [F],
    patches: &'a mut [F],
}

impl<F: Float> Kernel for Fill<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            layout,
            image,
            pixels,
            patches,
        } = self;
        if !layout.apart {
            layout.interleave(s, image, patches, layout.row_step());
            return;
        }
        let pixel_row = layout.pixel_row();
        layout.interleave(s, image, pixels, pixel_row);
        let rows = patches.chunks_exact_mut(layout.row_step());
        for (y, row) in rows.take(layout.rows).enumerate() {
            let pixels = &pixels[y * pixel_row..];
            match layout.run {
                1 => copy_runs::<F, S, 1>(s, pixels, layout.channels, row),
                2 => copy_runs::<F, S, 2>(s, pixels, layout.channels, row),
                3 => copy_runs::<F, S, 3>(s, pixels, layout.channels, row),
                _ => {
                    for (x, run) in row.chunks_exact_mut(layout.step).enumerate() {
                        run.copy_from_slice(&pixels[x * layout.channels..][..layout.step]);
                    }
                }
            }
        }
    }
}

/// Lays the runs of a row apart: N vectors for each position, of which the next starts `step` elements on.
#[inline(always)]
fn copy_runs<F: Float, S: Simd, const N: usize>(s: S, pixels: &[F], step: usize, runs: &mut [F]) {
    let lanes = F::V::<S>::LANES;
    for (x, run) in runs.chunks_exact_mut(N * lanes).enumerate() {
        let pixels = &pixels[x * step..][..N * lanes];
        for n in 0..N {
            F::V::<S>::load(s, &pixels[n * lanes..]).store(&mut run[n * lanes..]);
        }
    }
}

struct Gather<'a, F> {
    layout: &'a Patches,
    pixels: &'a [F],
    image: &'a mut [MaybeUninit<F>],
}

impl<F: Float> Kernel for Gather<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            layout,
            pixels,
            image,
        } = self;
        let channels = layout.channels;
        let width = layout.columns - 2 * layout.padding.1;
        let height = layout.rows - 2 * layout.padding.0;
        assert_eq!(image.len(), channels * height * width);
        // Without padding on the sides rows follow one another without a gap: one long row.
        let (rows, columns) = match layout.padding.1 {
            0 => (1, height * width),
            _ => (height, width),
        };
        for y in 0..rows {
            let row = (y + layout.padding.0) * layout.pixel_row() + layout.padding.1 * channels;
            let row = &pixels[row..][..columns * channels];
            let to = Planes {
                image: &mut *image,
                plane: height * width,
                first: y * columns,
            };
            part(s, row, channels, to);
        }
    }
}

/// Cuts a grid of kernel rows by vectors into pieces: all columns of a band of rows, then the next band.
fn pieces(rows: usize, vectors: usize, lanes: usize) -> Vec<Piece> {
    let (most_rows, most_vectors) = MOST_OF_A_PIECE;
    let mut pieces = Vec::new();
    let mut weights = 0;
    for row in (0..rows).step_by(most_rows) {
        for vector in (0..vectors).step_by(most_vectors) {
            let piece = Piece {
                row,
                rows: most_rows.min(rows - row),
                vector,
                vectors: most_vectors.min(vectors - vector),
                weights,
            };
            weights += piece.rows * piece.vectors * lanes;
            pieces.push(piece);
        }
    }
    pieces
}
