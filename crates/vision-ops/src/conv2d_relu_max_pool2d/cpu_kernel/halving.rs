//! What the two register-blocked forward kernels share: pooling of 2 x 2 windows and the image they read.

use std::mem::MaybeUninit;
use std::ops::Range;

use candle_simd::buffer::Uninit;
use candle_simd::parallel::Disjoint;
use candle_simd::prefetch::prefetch;
use candle_simd::{Isa, MAX_LANES, Vector};
use rayon::prelude::*;

use super::super::Geometry;
use crate::element::Element;

/// The largest of the four elements of each window, in row-major order, and its index. Among equal maxima the first
/// wins, of several NaN the last, as in PyTorch.
#[inline(always)]
pub(in crate::conv2d_relu_max_pool2d) fn pool_four<V: Vector>(
    s: V::Token,
    [first, others @ ..]: [V; 4],
) -> (V, V) {
    let number = |x: f64| V::splat(s, candle_simd::Float::from_f64(x));
    let (mut max, mut winner) = (first, number(0.0));
    let mut index = 1.0;
    for candidate in others {
        let replaces = candidate.gt(max) | candidate.is_nan();
        max = candidate.select(replaces, max);
        winner = number(index).select(replaces, winner);
        index += 1.0;
    }
    (max, winner)
}

/// Bytes of one image's winners. The kernels write and read whole vectors of bytes, so there is room behind the last.
pub(in crate::conv2d_relu_max_pool2d) fn winners_len(geometry: &Geometry) -> usize {
    geometry.conv.out_channels * geometry.pooled() + MAX_LANES
}

/// Asks for share `n` of `of` of images that come next: the batch was last read a whole pass over the model ago. Asked for all
/// at once they would fill the queue of cache lines that are on their way, and the kernel would wait for room in it.
#[inline(always)]
pub(in crate::conv2d_relu_max_pool2d) fn prefetch_share<F: Element>(
    images: &[F],
    n: usize,
    of: usize,
) {
    let end = |n: usize| images.len() * n / of;
    prefetch(&images[end(n)..end(n + 1)]);
}

/// Calls `f` with the number and the images of each task. Tasks are cut by the batch alone, so that partial sums have one
/// order for any number of threads; each has a share of the batch, and more where an image is little work.
pub(in crate::conv2d_relu_max_pool2d) fn for_image_chunks(
    geometry: &Geometry,
    f: impl Fn(usize, Range<usize>) + Sync + Send,
) {
    let size = chunk_size(geometry);
    let batch = geometry.conv.batch;
    let chunks = batch.div_ceil(size);
    let range = |chunk: usize| chunk * size..batch.min((chunk + 1) * size);
    // A hop into the pool costs as much as about this many multiply-adds.
    const PARALLEL_FROM: usize = 1 << 19;
    let multiply_adds = batch * geometry.conv.output_len() * geometry.conv.taps();
    if multiply_adds < PARALLEL_FROM {
        (0..chunks).for_each(|chunk| f(chunk, range(chunk)));
    } else {
        (0..chunks)
            .into_par_iter()
            .for_each(|chunk| f(chunk, range(chunk)));
    }
}

/// Images of a task: so many that its sums, which are zeroed and added up, are a small part.
pub(in crate::conv2d_relu_max_pool2d) fn chunk_size(geometry: &Geometry) -> usize {
    // Multiply-adds of backward: some ten microseconds.
    const ENOUGH: usize = 1 << 19;
    let conv = &geometry.conv;
    let image = conv.out_channels * geometry.pooled() * conv.taps();
    conv.gradient_chunk().max(ENOUGH.div_ceil(image.max(1)))
}

/// A forward kernel for a run of images.
///
/// # Safety
/// `run` writes every element of `y`.
pub(in crate::conv2d_relu_max_pool2d) unsafe trait ImagesForward<F>:
    Sync
{
    /// Computes the results and winners of whole images.
    fn run(&self, isa: Isa, images: &[F], y: &mut [MaybeUninit<F>], winners: &mut [u8]);
}

/// Runs a forward kernel over the batch.
pub(in crate::conv2d_relu_max_pool2d) fn forward<F: Element>(
    isa: Isa,
    geometry: &Geometry,
    x: &[F],
    kernel: &impl ImagesForward<F>,
) -> (Vec<F>, Vec<u8>) {
    let (input, output) = (
        geometry.conv.input_len(),
        geometry.conv.out_channels * geometry.pooled(),
    );
    let kept = winners_len(geometry);
    let len = geometry.conv.batch * output;
    let mut y = Uninit::<F>::new(len);
    let mut winners = vec![0; geometry.conv.batch * kept];
    let y_parts = Disjoint::new(&mut y.as_uninit()[..len]);
    let winner_parts = Disjoint::new(&mut winners);
    for_image_chunks(geometry, |_, images| {
        // SAFETY: chunks of images do not overlap.
        let (y, winners) = unsafe {
            (
                y_parts.part(images.start * output..images.end * output),
                winner_parts.part(images.start * kept..images.end * kept),
            )
        };
        kernel.run(
            isa,
            &x[images.start * input..images.end * input],
            y,
            winners,
        );
    });
    // SAFETY: the chunks are all images, and the kernel wrote every result of each.
    (unsafe { y.assume_init(len) }, winners)
}
