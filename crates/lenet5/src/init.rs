//! Initial values from a seed, by PyTorch's rule.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::model::PARAMETERS;

/// The initial values of every parameter in the order of [`PARAMETERS`], in double precision.
///
/// Weights and biases alike are uniform in `[-1/sqrt(fan_in), 1/sqrt(fan_in))`: what `torch.nn.Conv2d` and `torch.nn.Linear` do
/// (`kaiming_uniform_` with `a = sqrt(5)` comes to the same bound). Candle's own default is 2.45 times wider.
///
/// The stream: one `ChaCha8Rng::seed_from_u64(seed)`, one `next_u64` a value, in parameter order and row-major within a
/// parameter; the top 53 bits `k` give `u = k / 2^53` and the value `(2u - 1) * bound`. It is the same on every platform.
///
/// ```
/// let values = lenet5::initial_values(0);
/// assert_eq!(values.iter().map(Vec::len).sum::<usize>(), lenet5::PARAMETER_COUNT);
/// assert!(values[0].iter().all(|v| v.abs() <= 0.2));
/// ```
pub fn initial_values(seed: u64) -> Vec<Vec<f64>> {
    const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    PARAMETERS
        .iter()
        .map(|spec| {
            let bound = 1.0 / (spec.fan_in as f64).sqrt();
            (0..spec.element_count())
                .map(|_| {
                    let unit = (rng.next_u64() >> 11) as f64 * UNIT;
                    (2.0 * unit - 1.0) * bound
                })
                .collect()
        })
        .collect()
}
