//! The implementation for any shape: convolve, then pool; in backward spread the upstream gradient over the winners and
//! convolve back.

use candle_simd::Isa;

use super::super::Geometry;
use crate::conv2d;
use crate::element::Element;

/// The result and the winners, row-major.
pub(in crate::conv2d_relu_max_pool2d) fn forward<F: Element>(
    isa: Isa,
    geometry: &Geometry,
    x: &[F],
    weight: &[F],
    bias: &[F],
) -> (Vec<F>, Vec<u8>) {
    let map = conv2d::forward(isa, &geometry.conv, x, weight, Some(bias));
    let pool = &geometry.pool;
    let results = geometry.conv.batch * geometry.conv.out_channels * geometry.pooled();
    let mut y = Vec::with_capacity(results);
    let mut winners = Vec::with_capacity(results);
    let width = geometry.conv.output.1;
    for plane in map.chunks_exact(geometry.conv.positions()) {
        for i in 0..pool.output.0 {
            for j in 0..pool.output.1 {
                let corner = i * pool.stride.0 * width + j * pool.stride.1;
                let mut max = plane[corner];
                let mut winner = 0;
                for a in 0..pool.kernel.0 {
                    for b in 0..pool.kernel.1 {
                        let value = plane[corner + a * width + b];
                        if value > max || value.is_nan() {
                            max = value;
                            winner = a * pool.kernel.1 + b;
                        }
                    }
                }
                // NaN is not below 0 and stays.
                y.push(if max < F::ZERO { F::ZERO } else { max });
                winners.push(winner as u8);
            }
        }
    }
    (y, winners)
}

/// The upstream gradient of the map before pooling, row-major. Nothing passes where the result is 0.
pub(in crate::conv2d_relu_max_pool2d) fn spread<F: Element>(
    geometry: &Geometry,
    winners: &[u8],
    y: &[F],
    upstream: &[F],
) -> Vec<F> {
    let pool = &geometry.pool;
    let width = geometry.conv.output.1;
    let positions = geometry.conv.positions();
    let mut map = vec![F::ZERO; geometry.conv.batch * geometry.conv.output_len()];
    for (index, plane) in map.chunks_exact_mut(positions).enumerate() {
        for i in 0..pool.output.0 {
            for j in 0..pool.output.1 {
                let at = index * geometry.pooled() + i * pool.output.1 + j;
                if y[at] <= F::ZERO {
                    continue;
                }
                let winner = winners[at] as usize;
                let row = i * pool.stride.0 + winner / pool.kernel.1;
                let column = j * pool.stride.1 + winner % pool.kernel.1;
                let sum = &mut plane[row * width + column];
                *sum += upstream[at];
            }
        }
    }
    map
}
