//! Convolution as matrix products over shifted views of a padded image, without unfolding it.
//!
//! The padded image is stored as one plane for each channel and each phase of the stride (row and column modulo the
//! stride). Then the pixels that a kernel element sees, for all windows, are one run of a plane: window (i, j) is at
//! position `i * row + j`, `row` being the width of a plane, and the kernel element shifts all of them by the same offset.
//! So output channel o at all positions is a row of a product ([`Product`]) whose second operand has rows at any offset:
//! stride, padding and dilation cost nothing in the inner loop. Where rows of the result fill vectors, each row of positions is
//! a run of columns of the product, written where it belongs ([`rows_fill_vectors`]). Else all positions are one run, of which those
//! between the end of an output row and the end of a plane's row are computed and thrown away, `(row - OW) / row` of the work.

use std::mem::MaybeUninit;

use candle_simd::Isa;

use super::super::Conv2dGeometry;
use super::{add_positions, by_image, rows_fill_vectors, sum_by_chunks};
use crate::element::Element;
use crate::kernels::lanes::lanes;
use crate::kernels::pad::{Padded, pad};
use crate::kernels::product::{Columns, Product, Start, Target, Term};
use crate::kernels::scratch::Scratch;
use crate::kernels::turn::turn;

/// Vectors at the end of a row may reach this many elements past it; buffers that are read have room for it.
const SLACK: usize = 64;

/// Where things are in the planes of one padded image.
struct Planes<'a> {
    geometry: &'a Conv2dGeometry,
    /// Rows and columns of a plane.
    rows: usize,
    row: usize,
}

impl<'a> Planes<'a> {
    fn new(geometry: &'a Conv2dGeometry) -> Self {
        let Conv2dGeometry { input, options, .. } = geometry;
        Self {
            geometry,
            rows: (input.0 + 2 * options.padding.0).div_ceil(options.stride.0),
            row: (input.1 + 2 * options.padding.1).div_ceil(options.stride.1),
        }
    }

    fn plane(&self) -> usize {
        self.rows * self.row
    }

    fn phases(&self) -> usize {
        self.geometry.options.stride.0 * self.geometry.options.stride.1
    }

    /// Elements of all planes of one image.
    fn len(&self) -> usize {
        self.geometry.in_channels * self.phases() * self.plane()
    }

    /// Positions from the first window to the last.
    fn span(&self) -> usize {
        (self.geometry.output.0 - 1) * self.row + self.geometry.output.1
    }

    /// The positions of `rows` rows of `columns` in a plane, as columns of a product whose result has them without a gap.
    fn by_rows(&self, (rows, columns): (usize, usize)) -> Columns {
        Columns {
            count: columns,
            runs: rows,
            b_step: self.row,
            c_step: columns,
        }
    }

    /// The phase that kernel element (a, b) sees, and its offset in a plane of that phase.
    fn tap(&self, a: usize, b: usize) -> (usize, usize) {
        let options = &self.geometry.options;
        let (y, x) = (a * options.dilation.0, b * options.dilation.1);
        let phase = y % options.stride.0 * options.stride.1 + x % options.stride.1;
        (
            phase,
            y / options.stride.0 * self.row + x / options.stride.1,
        )
    }

    /// The offsets of the kernel elements of a group's channels, in the order of the weights.
    fn tap_offsets(&self) -> Vec<usize> {
        let (rows, columns) = self.geometry.kernel;
        let mut offsets = Vec::with_capacity(self.geometry.taps());
        for c in 0..self.geometry.group_inputs() {
            for a in 0..rows {
                for b in 0..columns {
                    let (phase, offset) = self.tap(a, b);
                    offsets.push((c * self.phases() + phase) * self.plane() + offset);
                }
            }
        }
        offsets
    }

    /// Calls `f` with each piece of an image row that lies in one phase: (its plane and position in it, the index in the
    /// image of its first element, how many elements). Elements of a piece are `stride.1` apart in the image.
    fn for_each_piece(&self, mut f: impl FnMut(usize, usize, usize)) {
        let Conv2dGeometry {
            in_channels,
            input: (height, width),
            options,
            ..
        } = *self.geometry;
        let (stride, padding) = (options.stride, options.padding);
        for c in 0..in_channels {
            for y in 0..height {
                let padded = y + padding.0;
                for phase in 0..stride.1.min(width) {
                    let column = phase + padding.1;
                    let plane = (c * stride.0 + padded % stride.0) * stride.1 + column % stride.1;
                    let at =
                        plane * self.plane() + padded / stride.0 * self.row + column / stride.1;
                    f(
                        at,
                        (c * height + y) * width + phase,
                        (width - phase).div_ceil(stride.1),
                    );
                }
            }
        }
    }

    /// Spreads an image over planes, with zeros around it, and writes all of them.
    fn spread<F: Element>(&self, isa: Isa, image: &[F], planes: &mut [F]) {
        let Conv2dGeometry { input, options, .. } = *self.geometry;
        if options.stride == (1, 1) {
            let layout = Padded {
                image: input,
                plane: self.plane(),
                first: options.padding.0 * self.row + options.padding.1,
                row: self.row,
            };
            return pad(isa, layout, image, planes);
        }
        planes.fill(F::ZERO);
        let step = options.stride.1;
        self.for_each_piece(|at, from, count| {
            for (k, to) in planes[at..at + count].iter_mut().enumerate() {
                *to = image[from + k * step];
            }
        });
    }

    /// The inverse of [`Self::spread`]: gathers every pixel of an image from planes.
    fn gather<F: Element>(&self, planes: &[F], image: &mut [MaybeUninit<F>]) {
        let step = self.geometry.options.stride.1;
        self.for_each_piece(|at, from, count| {
            if step == 1 {
                write(&mut image[from..from + count], &planes[at..]);
            } else {
                for (k, &value) in planes[at..at + count].iter().enumerate() {
                    image[from + k * step].write(value);
                }
            }
        });
    }
}

/// Writes all of `to`; `from` is at least as long.
fn write<F: Copy>(to: &mut [MaybeUninit<F>], from: &[F]) {
    let from = &from[..to.len()];
    for (to, &value) in to.iter_mut().zip(from) {
        to.write(value);
    }
}

/// The result, row-major.
pub(crate) fn forward<F: Element>(
    isa: Isa,
    geometry: &Conv2dGeometry,
    x: &[F],
    weight: &[F],
    bias: Option<&[F]>,
) -> Vec<F> {
    let planes = Planes::new(geometry);
    let taps = planes.tap_offsets().into_iter().enumerate();
    let terms: Vec<Term> = taps.map(|(a, b)| Term { a, b }).collect();
    let image = |n: usize, y: &mut [MaybeUninit<F>]| {
        let x = &x[n * geometry.input_len()..][..geometry.input_len()];
        forward_image(isa, geometry, &planes, &terms, x, weight, bias, y);
    };
    // SAFETY: an image writes all rows of all of its output channels.
    unsafe { by_image(geometry, geometry.output_len(), image) }
}

#[allow(clippy::too_many_arguments)]
fn forward_image<F: Element>(
    isa: Isa,
    geometry: &Conv2dGeometry,
    planes: &Planes<'_>,
    terms: &[Term],
    image: &[F],
    weight: &[F],
    bias: Option<&[F]>,
    y: &mut [MaybeUninit<F>],
) {
    let mut padded = Scratch::dirty(planes.len() + SLACK);
    planes.spread(isa, image, &mut padded[..planes.len()]);
    let outputs = geometry.group_outputs();
    let (span, (height, width)) = (planes.span(), geometry.output);
    let by_rows = rows_fill_vectors(lanes::<F>(isa), geometry.output, span);
    let mut wide = Scratch::dirty(if by_rows { 0 } else { outputs * span });
    let rows: Vec<usize> = (0..outputs).map(|o| o * geometry.taps()).collect();
    let group_planes = geometry.group_inputs() * planes.phases() * planes.plane();
    for group in 0..geometry.options.groups {
        let first = group * outputs;
        let y = &mut y[first * height * width..][..outputs * height * width];
        let (columns, c, c_stride) = match by_rows {
            true => {
                let columns = planes.by_rows(geometry.output);
                (columns, Target::Fresh(&mut *y), height * width)
            }
            false => (Columns::neighbours(span), Target::Given(&mut wide), span),
        };
        Product {
            a: &weight[first * geometry.taps()..],
            a_rows: &rows,
            b: &padded[group * group_planes..],
            terms,
            columns,
            c,
            c_stride,
            start: bias.map_or(Start::Zero, |bias| Start::RowBias(&bias[first..])),
            relu: false,
        }
        .run(isa);
        if !by_rows {
            for (index, y) in y.chunks_exact_mut(width).enumerate() {
                let (o, i) = (index / height, index % height);
                write(y, &wide[o * span + i * planes.row..]);
            }
        }
    }
}

/// The gradient of `x`, row-major.
///
/// Each plane is a convolution of the upstream gradient with the kernel elements that see its phase, turned round.
pub(super) fn backward_input<F: Element>(
    isa: Isa,
    geometry: &Conv2dGeometry,
    weight: &[F],
    upstream: &[F],
) -> Vec<F> {
    let planes = Planes::new(geometry);
    let options = &geometry.options;
    let (inputs, outputs) = (geometry.group_inputs(), geometry.group_outputs());
    let (kernel_rows, kernel_columns) = geometry.kernel;
    // The rows of a plane that hold pixels of the image.
    let first_row = options.padding.0 / options.stride.0;
    let end_row = (options.padding.0 + geometry.input.0).div_ceil(options.stride.0);
    let positions = (end_row - first_row) * planes.row;
    // With one phase the rows of the plane are those of the image.
    let by_rows =
        planes.phases() == 1 && rows_fill_vectors(lanes::<F>(isa), geometry.input, positions);
    // Before position 0 lie as many zeros as the largest offset of a kernel element, and after the last window enough
    // for every position of a plane.
    let (_, lead) = planes.tap(kernel_rows - 1, kernel_columns - 1);
    let lead = lead
        .max((kernel_rows - 1) * options.dilation.0 / options.stride.0 * planes.row + planes.row);
    let channel = lead + planes.plane() + SLACK;
    let phases: Vec<PhaseTaps<F>> = (0..planes.phases())
        .map(|phase| {
            let mut taps = PhaseTaps {
                weights: Vec::new(),
                terms: Vec::new(),
            };
            for o in 0..outputs {
                for a in 0..kernel_rows {
                    for b in 0..kernel_columns {
                        let (seen, offset) = planes.tap(a, b);
                        if seen == phase {
                            taps.terms.push(Term {
                                a: taps.terms.len(),
                                b: o * channel + lead + first_row * planes.row - offset,
                            });
                        }
                    }
                }
            }
            for group in 0..options.groups {
                for c in 0..inputs {
                    for o in 0..outputs {
                        for a in 0..kernel_rows {
                            for b in 0..kernel_columns {
                                if planes.tap(a, b).0 == phase {
                                    let row = (group * outputs + o) * inputs + c;
                                    taps.weights
                                        .push(weight[(row * kernel_rows + a) * kernel_columns + b]);
                                }
                            }
                        }
                    }
                }
            }
            taps
        })
        .collect();
    let image = |n: usize, grad: &mut [MaybeUninit<F>]| {
        let upstream = &upstream[n * geometry.output_len()..][..geometry.output_len()];
        let mut spread = Scratch::dirty(outputs * channel);
        let mut padded = Scratch::dirty(if by_rows { 0 } else { planes.len() });
        for group in 0..options.groups {
            let layout = Padded {
                image: geometry.output,
                plane: channel,
                first: lead,
                row: planes.row,
            };
            let of_group = outputs * geometry.positions();
            let upstream = &upstream[group * of_group..][..of_group];
            pad(isa, layout, upstream, &mut spread);
            for (phase, taps) in phases.iter().enumerate() {
                let depth = taps.terms.len();
                let rows: Vec<usize> = (0..inputs).map(|c| c * depth).collect();
                let (height, width) = geometry.input;
                let (columns, first_column, c, c_stride) = match by_rows {
                    true => {
                        let columns = planes.by_rows(geometry.input);
                        let grad = &mut grad[group * inputs * height * width..];
                        let c = Target::Fresh(grad);
                        (columns, options.padding.1, c, height * width)
                    }
                    false => {
                        let first = (group * inputs * planes.phases() + phase) * planes.plane();
                        let c = Target::Given(&mut padded[first + first_row * planes.row..]);
                        let stride = planes.phases() * planes.plane();
                        (Columns::neighbours(positions), 0, c, stride)
                    }
                };
                Product {
                    a: &taps.weights[group * inputs * depth..],
                    a_rows: &rows,
                    b: &spread[first_column..],
                    terms: &taps.terms,
                    columns,
                    c,
                    c_stride,
                    start: Start::Zero,
                    relu: false,
                }
                .run(isa);
            }
        }
        if !by_rows {
            planes.gather(&padded, grad);
        }
    };
    // SAFETY: the product of an image's rows writes every pixel, or gathering it does.
    unsafe { by_image(geometry, geometry.input_len(), image) }
}

/// The kernel elements that see one phase.
struct PhaseTaps<F> {
    /// By group, input channel, output channel of the group, kernel element.
    weights: Vec<F>,
    /// By output channel of the group and kernel element; `b` is where its row of the upstream gradient starts.
    terms: Vec<Term>,
}

/// The gradients of `weight` and of the bias, row-major.
///
/// In a chunk of images the vectors run along the output channels: the upstream gradient is turned so that a position's channels
/// are neighbours.
pub(super) fn backward_weight<F: Element>(
    isa: Isa,
    geometry: &Conv2dGeometry,
    x: &[F],
    upstream: &[F],
) -> (Vec<F>, Vec<F>) {
    let planes = Planes::new(geometry);
    let taps = planes.tap_offsets();
    let len = geometry.weight_len();
    let (sum, bias) = sum_by_chunks(geometry, len, |images, weight, bias| {
        let parts = (weight, bias);
        chunk_gradient(isa, geometry, &planes, &taps, images, x, upstream, parts);
    });
    // Chunks keep (group, tap, output); the weights are (group, output, tap).
    let (outputs, taps) = (geometry.group_outputs(), geometry.taps());
    let mut weight = vec![F::ZERO; len];
    for group in 0..geometry.options.groups {
        for tap in 0..taps {
            for o in 0..outputs {
                weight[(group * outputs + o) * taps + tap] =
                    sum[(group * taps + tap) * outputs + o];
            }
        }
    }
    (weight, bias)
}

#[allow(clippy::too_many_arguments)]
fn chunk_gradient<F: Element>(
    isa: Isa,
    geometry: &Conv2dGeometry,
    planes: &Planes<'_>,
    taps: &[usize],
    images: std::ops::Range<usize>,
    x: &[F],
    upstream: &[F],
    (weight, bias): (&mut [F], &mut [F]),
) {
    let outputs = geometry.group_outputs();
    let group_planes = geometry.group_inputs() * planes.phases() * planes.plane();
    let (height, width) = geometry.output;
    let terms: Vec<Term> = (0..height * width)
        .map(|position| Term {
            a: position / width * planes.row + position % width,
            b: position * outputs,
        })
        .collect();
    let mut padded = Scratch::dirty(planes.len() + SLACK);
    let mut turned = Scratch::dirty(height * width * outputs);
    for n in images {
        planes.spread(
            isa,
            &x[n * geometry.input_len()..][..geometry.input_len()],
            &mut padded[..planes.len()],
        );
        for group in 0..geometry.options.groups {
            let from = n * geometry.output_len() + group * outputs * geometry.positions();
            turn(
                isa,
                (outputs, height * width),
                (&upstream[from..], geometry.positions()),
                (&mut turned, outputs),
            );
            add_positions(&mut bias[group * outputs..][..outputs], &turned);
            Product {
                a: &padded[group * group_planes..],
                a_rows: taps,
                b: &turned,
                terms: &terms,
                columns: Columns::neighbours(outputs),
                c: Target::Given(&mut weight[group * taps.len() * outputs..]),
                c_stride: outputs,
                start: Start::Accumulate,
                relu: false,
            }
            .run(isa);
        }
    }
}
