//! The loops of max pooling. Planes (one channel of one image) are independent and run in parallel.

use candle_core::{Layout, Result, WithDType};
use half::{bf16, f16};
use rayon::prelude::*;

use super::PoolGeometry;

/// An element that can be pooled. Gradients of overlapping windows add up in `Sum`, so that f16 and bf16 round once.
pub(super) trait PoolElement: WithDType + PartialOrd {
    type Sum: Copy + Default + std::ops::AddAssign;
    fn widen(self) -> Self::Sum;
    fn narrow(sum: Self::Sum) -> Self;
}

macro_rules! pool_element {
    ($element:ty, $sum:ty, $widen:expr, $narrow:expr) => {
        impl PoolElement for $element {
            type Sum = $sum;
            #[inline(always)]
            fn widen(self) -> $sum {
                $widen(self)
            }
            #[inline(always)]
            fn narrow(sum: $sum) -> Self {
                $narrow(sum)
            }
        }
    };
}
pool_element!(f32, f32, std::convert::identity, std::convert::identity);
pool_element!(f64, f64, std::convert::identity, std::convert::identity);
pool_element!(f16, f32, f16::to_f32, f16::from_f32);
pool_element!(bf16, f32, bf16::to_f32, bf16::from_f32);

/// An index inside a window, as small as the window allows; `()` keeps none.
pub(super) trait WindowIndex: Copy + Default + Send + Sync {
    fn new(index: usize) -> Self;
    fn get(self) -> usize;
}

macro_rules! window_index {
    ($($integer:ty),*) => {$(
        impl WindowIndex for $integer {
            #[inline(always)]
            fn new(index: usize) -> Self {
                index as $integer
            }
            #[inline(always)]
            fn get(self) -> usize {
                self as usize
            }
        }
    )*};
}
window_index!(u8, u16, u32);

impl WindowIndex for () {
    #[inline(always)]
    fn new(_: usize) -> Self {}
    #[inline(always)]
    fn get(self) -> usize {
        0
    }
}

/// Planes below this many elements in all are pooled on the calling thread.
const PARALLEL_FROM: usize = 1 << 15;

/// Maxima and winners, in row-major order of (N, C, rows, columns). `x` is the whole storage that `layout` points into.
pub(super) fn forward<T: PoolElement, I: WindowIndex>(
    x: &[T],
    layout: &Layout,
    geometry: &PoolGeometry,
) -> Result<(Vec<T>, Vec<I>)> {
    let (batch, channels, _, _) = layout.shape().dims4()?;
    let &[stride_n, stride_c, stride_h, stride_w] = layout.stride() else {
        unreachable!("four dimensions have four strides")
    };
    let planes = batch * channels;
    let plane = geometry.output.0 * geometry.output.1;
    let mut values = vec![T::zero(); planes * plane];
    let mut winners = vec![I::default(); planes * plane];
    let pool_plane = |(index, (values, winners)): (usize, (&mut [T], &mut [I]))| {
        let start =
            layout.start_offset() + index / channels * stride_n + index % channels * stride_c;
        let mut out = 0;
        for i in 0..geometry.output.0 {
            for j in 0..geometry.output.1 {
                let corner =
                    start + i * geometry.stride.0 * stride_h + j * geometry.stride.1 * stride_w;
                let mut max = x[corner];
                let mut winner = 0;
                for a in 0..geometry.kernel.0 {
                    for b in 0..geometry.kernel.1 {
                        let value = x[corner + a * stride_h + b * stride_w];
                        // NaN is the only value that differs from itself.
                        #[allow(clippy::eq_op)]
                        if value > max || value != value {
                            max = value;
                            winner = a * geometry.kernel.1 + b;
                        }
                    }
                }
                values[out] = max;
                winners[out] = I::new(winner);
                out += 1;
            }
        }
    };
    if values.len() * geometry.window() < PARALLEL_FROM {
        values
            .chunks_mut(plane)
            .zip(winners.chunks_mut(plane))
            .enumerate()
            .for_each(pool_plane);
    } else {
        values
            .par_chunks_mut(plane)
            .zip(winners.par_chunks_mut(plane))
            .enumerate()
            .for_each(pool_plane);
    }
    Ok((values, winners))
}

/// The gradient of the input, row-major, from the upstream gradient and the winners.
pub(super) fn backward<T: PoolElement, I: WindowIndex>(
    upstream: &[T],
    winners: &[I],
    geometry: &PoolGeometry,
) -> Vec<T> {
    let (height, width) = geometry.input;
    let out_plane = geometry.output.0 * geometry.output.1;
    let planes = upstream.len() / out_plane;
    let mut grad = vec![T::zero(); planes * height * width];
    let scatter_plane = |sums: &mut Vec<T::Sum>, (index, grad): (usize, &mut [T])| {
        sums.clear();
        sums.resize(height * width, T::Sum::default());
        for i in 0..geometry.output.0 {
            for j in 0..geometry.output.1 {
                let out = index * out_plane + i * geometry.output.1 + j;
                let winner = winners[out].get();
                let row = i * geometry.stride.0 + winner / geometry.kernel.1;
                let column = j * geometry.stride.1 + winner % geometry.kernel.1;
                sums[row * width + column] += upstream[out].widen();
            }
        }
        for (grad, &sum) in grad.iter_mut().zip(sums.iter()) {
            *grad = T::narrow(sum);
        }
    };
    if grad.len() < PARALLEL_FROM {
        let mut sums = Vec::new();
        grad.chunks_mut(height * width)
            .enumerate()
            .for_each(|plane| scatter_plane(&mut sums, plane));
    } else {
        grad.par_chunks_mut(height * width)
            .enumerate()
            .for_each_init(Vec::new, scatter_plane);
    }
    grad
}
