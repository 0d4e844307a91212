//! The weight gradient of the sparse backward pass: a channel's sums stay in registers while its entries pass by.

use candle_simd::{Float, Isa, Kernel, Simd, Vector};

use super::entries::Entries;
use super::patches::{Patches, Piece};

/// Adds the patches of the entries of `channels` output channels, times their gradients, to their weight gradients.
pub(super) fn add_weight_gradients<F: Float>(
    isa: Isa,
    patches: &Patches,
    seen: &[F],
    entries: &Entries<F>,
    channels: usize,
    sums: &mut [F],
) {
    assert!(seen.len() >= patches.buffer_len());
    assert!(sums.len() >= channels * patches.weights_len());
    for piece in &patches.pieces {
        let sweep = Sweep {
            patches,
            piece,
            seen,
            entries,
            channels,
            sums: &mut *sums,
        };
        // Few sums are kept several times over, or each multiply-add would wait for the one before.
        match (piece.rows, piece.vectors) {
            (1, 1) => isa.dispatch(Of::<_, 1, 1, 8>(sweep)),
            (2, 1) => isa.dispatch(Of::<_, 2, 1, 4>(sweep)),
            (3, 1) => isa.dispatch(Of::<_, 3, 1, 3>(sweep)),
            (4, 1) => isa.dispatch(Of::<_, 4, 1, 2>(sweep)),
            (5, 1) => isa.dispatch(Of::<_, 5, 1, 2>(sweep)),
            (1, 2) => isa.dispatch(Of::<_, 1, 2, 4>(sweep)),
            (2, 2) => isa.dispatch(Of::<_, 2, 2, 2>(sweep)),
            (3, 2) => isa.dispatch(Of::<_, 3, 2, 2>(sweep)),
            (4, 2) => isa.dispatch(Of::<_, 4, 2, 1>(sweep)),
            (5, 2) => isa.dispatch(Of::<_, 5, 2, 1>(sweep)),
            _ => unreachable!("pieces are cut to at most five rows and two vectors"),
        }
    }
}

struct Sweep<'a, F: Float> {
    patches: &'a Patches,
    piece: &'a Piece,
    seen: &'a [F],
    entries: &'a Entries<F>,
    channels: usize,
    sums: &'a mut [F],
}

/// A sweep for a piece of K rows of N vectors, M entries at a time.
struct Of<T, const K: usize, const N: usize, const M: usize>(T);

impl<F: Float, const K: usize, const N: usize, const M: usize> Kernel
    for Of<Sweep<'_, F>, K, N, M>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Sweep {
            patches,
            piece,
            seen,
            entries,
            channels,
            sums: all,
        } = self.0;
        let lanes = F::V::<S>::LANES;
        let (step, row) = (patches.step, patches.group_step());
        let corner = &seen[piece.row * row + piece.vector * lanes..];
        for n in 0..channels {
            let list = entries.list(n);
            let mut sums = [[[F::V::<S>::splat(s, F::ZERO); N]; K]; M];
            let mut entry = 0;
            while entry < list.count {
                for (m, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: a list is filled up with MOST_AT_ONCE entries, M or more. A position in it is that of a
                    // patch, or of the zeros, in a buffer of `buffer_len`, and the piece is a part of a patch.
                    unsafe {
                        let gradient = *list.gradients.get_unchecked(entry + m);
                        let position = *list.positions.get_unchecked(entry + m) as usize;
                        let gradient = F::V::<S>::splat(s, gradient);
                        let patch = corner.as_ptr().add(position * step);
                        for (k, sums) in sums.iter_mut().enumerate() {
                            for (n, sum) in sums.iter_mut().enumerate() {
                                let seen = F::V::<S>::load_ptr(s, patch.add(k * row + n * lanes));
                                *sum = gradient.mul_add(seen, *sum);
                            }
                        }
                    }
                }
                entry += M;
            }
            let to = &mut all[n * patches.weights_len() + piece.weights..][..K * N * lanes];
            for (v, to) in to.chunks_exact_mut(lanes).enumerate() {
                let mut sum = F::V::<S>::load(s, to);
                for sums in &sums {
                    sum = sum + sums[v / N][v % N];
                }
                sum.store(to);
            }
        }
    }
}
