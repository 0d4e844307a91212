//! Sums that tasks kept apart, added in a fixed order so that the number of threads does not show.

use candle_simd::Float;

/// The sum of the consecutive parts of `len` elements, in their order.
pub(crate) fn add_in_order<F: Float>(parts: &[F], len: usize) -> Vec<F> {
    let mut total = vec![F::ZERO; len];
    for part in parts.chunks_exact(len.max(1)) {
        for (total, &x) in total.iter_mut().zip(part) {
            *total = *total + x;
        }
    }
    total
}
