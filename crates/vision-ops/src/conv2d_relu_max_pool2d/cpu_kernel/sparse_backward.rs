//! Backward pass that visits only the map positions that won their window and were positive.
//!
//! For each image and output channel these are listed: upstream gradient and number of the position (see [`Patches`]). Then
//! each entry is a handful of multiply-adds: its patch times its gradient is added to the channel's weight gradient, which
//! stays in registers for the whole list. For the input gradient the entries of each position are marked ([`ByPosition`]).
//!
//! Chunks of images, cut by the batch alone, sum their own weight gradients; the chunks are added in order.

use std::mem::MaybeUninit;
use std::ops::Range;

use candle_simd::Isa;
use candle_simd::buffer::Uninit;
use candle_simd::parallel::Disjoint;

use super::super::Geometry;
use super::super::fused::Known;
use super::by_position::{ByPosition, MOST_CHANNELS};
use super::entries::{Entries, ListEntries, Results, corners};
use super::halving::{chunk_size, for_image_chunks, winners_len};
use super::patches::Patches;
use super::weight_gradient::add_weight_gradients;
use crate::element::Element;
use crate::kernels::lanes::lanes;
use crate::kernels::partial_sums::add_in_order;
use crate::kernels::scratch::Scratch;
use crate::layer_op::{Gradients, Wanted};

/// Output channels that are taken together: their lists, and their weights, stay in the first-level cache.
const CHANNELS: usize = MOST_CHANNELS;

/// What the images of a batch share.
struct Shared<'a, F: Element> {
    geometry: &'a Geometry,
    patches: Patches,
    /// See [`Patches::weight_order`].
    order: Vec<usize>,
    /// For each pooled position, the number of its window's first position. These are whole numbers below 2^24, which both
    /// float types hold.
    corners: Vec<F>,
    /// The weights of each output channel in the order of the pieces of a patch; empty if no input gradient is wanted.
    weight: Scratch<F>,
    lanes: usize,
}

impl<F: Element> Shared<'_, F> {
    /// Elements of one output channel's weight gradient.
    fn patch_len(&self) -> usize {
        self.patches.weights_len()
    }

    /// Elements of a chunk's sums: weight gradients, then a vector of bias gradient for each output channel.
    fn sums_len(&self) -> usize {
        self.geometry.conv.out_channels * (self.patch_len() + self.lanes)
    }
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
    let order = patches.weight_order();
    let shared = Shared {
        corners: corners(geometry, &patches),
        weight: if wanted.x {
            patch_weights(geometry, &patches, &order, weight)
        } else {
            Scratch::zeroed(0)
        },
        geometry,
        patches,
        order,
        lanes,
    };
    let sums_len = shared.sums_len();
    let chunks = conv.batch.div_ceil(chunk_size(geometry));
    let mut sums = Scratch::zeroed(chunks * sums_len);
    let x_len = match wanted.x {
        true => conv.batch * conv.input_len(),
        false => 0,
    };
    let mut x_grad = Uninit::<F>::new(x_len);
    let sum_parts = Disjoint::new(&mut sums);
    let x_parts = Disjoint::new(&mut x_grad.as_uninit()[..x_len]);
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
        let (pixels, windows) = match wanted.x {
            true => (shared.patches.pixels_len(), geometry.pool.output),
            false => (0, (0, 0)),
        };
        let mut chunk = Chunk {
            isa,
            shared: &shared,
            known: Known {
                winners: &winners[part(kept)],
                x: &x[part(conv.input_len())],
                weight,
                y: &y[part(pooled)],
                upstream: &upstream[part(pooled)],
            },
            sums,
            patches: Scratch::zeroed(shared.patches.buffer_len()),
            pixels: Scratch::zeroed(pixels),
            entries: Entries::new(geometry, CHANNELS),
            by_position: ByPosition::new(windows),
        };
        for n in 0..images.len() {
            let x_grad = match wanted.x {
                true => Some(&mut x_grad[n * conv.input_len()..][..conv.input_len()]),
                false => None,
            };
            chunk.image(n, x_grad);
        }
    });
    let (weight, bias) = add_up(&shared, &sums);
    Gradients {
        // SAFETY: where it is wanted, the chunks are all images, and the gradient of each was gathered to every element.
        x: unsafe { x_grad.assume_init(x_len) },
        weight,
        bias,
    }
}

/// The weights of every output channel in the order of the pieces of a patch.
fn patch_weights<F: Element>(
    geometry: &Geometry,
    patches: &Patches,
    order: &[usize],
    weight: &[F],
) -> Scratch<F> {
    let len = patches.weights_len();
    let mut ordered = Scratch::zeroed(geometry.conv.out_channels * len);
    let channels = weight.chunks_exact(order.len());
    for (weight, ordered) in channels.zip(ordered.chunks_exact_mut(len)) {
        for (&weight, &at) in weight.iter().zip(order) {
            ordered[at] = weight;
        }
    }
    ordered
}

/// Adds the sums of the chunks in order and brings them into the order of the weights.
fn add_up<F: Element>(shared: &Shared<'_, F>, sums: &[F]) -> (Vec<F>, Vec<F>) {
    let conv = &shared.geometry.conv;
    let total = add_in_order(sums, shared.sums_len());
    let (weights, bias) = total.split_at(conv.out_channels * shared.patch_len());
    let mut weight = Vec::with_capacity(conv.weight_len());
    for channel in weights.chunks_exact(shared.patch_len()) {
        weight.extend(shared.order.iter().map(|&at| channel[at]));
    }
    let bias = bias
        .chunks_exact(shared.lanes)
        .map(|lanes| lanes.iter().fold(F::ZERO, |sum, &x| sum + x))
        .collect();
    (weight, bias)
}

/// A chunk of images and the buffers that they share.
struct Chunk<'a, F: Element> {
    isa: Isa,
    shared: &'a Shared<'a, F>,
    /// Of the chunk's images.
    known: Known<'a, F>,
    sums: &'a mut [F],
    /// The image as patches.
    patches: Scratch<F>,
    /// The image before it is laid out, then its gradient; empty if no input gradient is wanted.
    pixels: Scratch<F>,
    entries: Entries<F>,
    by_position: ByPosition,
}

impl<F: Element> Chunk<'_, F> {
    /// Adds the gradients that image `n` of the chunk gives, and writes that of the image where it is wanted.
    fn image(&mut self, n: usize, x_grad: Option<&mut [MaybeUninit<F>]>) {
        let Self { isa, shared, .. } = *self;
        let conv = &shared.geometry.conv;
        let image = &self.known.x[n * conv.input_len()..][..conv.input_len()];
        shared
            .patches
            .fill(isa, image, &mut self.pixels, &mut self.patches);
        self.pixels.fill(F::ZERO);
        for first in (0..conv.out_channels).step_by(CHANNELS) {
            let channels = first..conv.out_channels.min(first + CHANNELS);
            self.channels(n, channels, x_grad.is_some());
        }
        if let Some(x_grad) = x_grad {
            shared.patches.gather(isa, &self.pixels, x_grad);
            if shared.patches.is_padded() {
                // The next image shares the buffer and writes no padding.
                self.pixels.fill(F::ZERO);
            }
        }
    }

    /// Adds what a block of output channels gives.
    fn channels(&mut self, n: usize, channels: Range<usize>, wanted_x: bool) {
        let Self { isa, shared, .. } = *self;
        let (outputs, pooled) = (shared.geometry.conv.out_channels, shared.geometry.pooled());
        let (len, lanes) = (shared.patches.weights_len(), shared.lanes);
        let of_block =
            (n * outputs + channels.start) * pooled..(n * outputs + channels.end) * pooled;
        let results = Results {
            channels: channels.len(),
            winners: &self.known.winners
                [n * winners_len(shared.geometry) + channels.start * pooled..],
            y: &self.known.y[of_block.clone()],
            upstream: &self.known.upstream[of_block],
        };
        let (weight_sums, bias_sums) = self.sums.split_at_mut(outputs * len);
        ListEntries {
            patches: &shared.patches,
            corners: &shared.corners,
            results,
            bias: &mut bias_sums[channels.start * lanes..channels.end * lanes],
            entries: &mut self.entries,
        }
        .run(isa);
        let weights = channels.start * len..channels.end * len;
        add_weight_gradients(
            isa,
            &shared.patches,
            &self.patches,
            &self.entries,
            channels.len(),
            &mut weight_sums[weights.clone()],
        );
        if wanted_x {
            self.by_position.mark(isa, results);
            self.by_position.add_input_gradient(
                isa,
                &shared.patches,
                results.upstream,
                &shared.weight[weights],
                &mut self.pixels,
            );
        }
    }
}
