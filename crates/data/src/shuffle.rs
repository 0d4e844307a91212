//! The order of samples: a pure function of the seed and the epoch, the same on every machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::ops::Range;

/// Keeps this stream apart from any other use of the same seed, such as weight initialisation.
const DOMAIN: [u8; 16] = *b"fashion-mnist-v1";

/// The permutation of `0..n` for an epoch.
///
/// Fisher-Yates from the last position down, each partner drawn without bias from ChaCha8 (Lemire's method with
/// rejection). The 32 bytes of ChaCha's key are the seed and the epoch, both little-endian, and the ASCII bytes
/// `fashion-mnist-v1`; its stream is stable across platforms and versions. No state is carried from epoch to epoch, so
/// that a resumed run sees the order of an uninterrupted one. Indices are u32: an `n` above `u32::MAX` is taken as
/// that.
///
/// # Examples
/// ```
/// use fashion_mnist::shuffle;
///
/// let order = shuffle(0, 3, 60_000);
/// assert_eq!(order, shuffle(0, 3, 60_000));
/// assert_ne!(order, shuffle(0, 4, 60_000));
/// assert_ne!(order, shuffle(1, 3, 60_000));
/// ```
pub fn shuffle(seed: u64, epoch: u64, n: usize) -> Vec<u32> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..].copy_from_slice(&DOMAIN);
    let mut generator = ChaCha8Rng::from_seed(key);

    let n = u32::try_from(n).unwrap_or(u32::MAX);
    let mut order: Vec<u32> = (0..n).collect();
    for last in (1..n).rev() {
        let partner = below(&mut generator, last + 1);
        order.swap(last as usize, partner as usize);
    }
    order
}

/// A uniform number in `0..bound` (Lemire, "Fast random integer generation in an interval", 2019).
fn below(generator: &mut impl RngCore, bound: u32) -> u32 {
    let unfair = bound.wrapping_neg() % bound;
    loop {
        let product = u64::from(generator.next_u32()) * u64::from(bound);
        if product as u32 >= unfair {
            return (product >> 32) as u32;
        }
    }
}

/// The ranges of consecutive batches over `n` samples; the last one is smaller if `batch_size` does not divide `n`.
///
/// A `batch_size` of 0 gives no batches.
///
/// # Examples
/// ```
/// use fashion_mnist::batches;
///
/// let sizes: Vec<usize> = batches(300, 128).map(|batch| batch.len()).collect();
/// assert_eq!(sizes, [128, 128, 44]);
/// ```
pub fn batches(n: usize, batch_size: usize) -> impl ExactSizeIterator<Item = Range<usize>> + Clone {
    let count = match batch_size {
        0 => 0,
        size => n.div_ceil(size),
    };
    (0..count).map(move |batch| {
        let start = batch * batch_size;
        start..start.saturating_add(batch_size).min(n)
    })
}
