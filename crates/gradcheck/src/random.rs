//! A small seeded generator: the same seed gives the same upstream gradients and directions everywhere.

/// SplitMix64 (Steele, Lea, Flood 2014): one addition and three mixing steps a draw, no state to warm up.
#[derive(Debug, Clone)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn sign(&mut self) -> f64 {
        if self.next_u64() >> 63 == 0 {
            1.0
        } else {
            -1.0
        }
    }

    /// An upstream gradient element: a multiple of 1/32 with magnitude in [0.5, 3], never 1, random sign.
    ///
    /// At most seven significant bits, so the value and its double are exact in f64, f32, f16 and bf16: every dtype
    /// sees the same upstream gradient.
    pub(crate) fn upstream_element(&mut self) -> f64 {
        let thirty_seconds = 16 + self.next_u64() % 81;
        let magnitude = if thirty_seconds == 32 {
            33
        } else {
            thirty_seconds
        };
        self.sign() * magnitude as f64 / 32.0
    }

    /// A direction element: magnitude uniform in [0.5, 1), random sign.
    ///
    /// Bounded away from zero so that no element escapes a projection, and of varying magnitude so that equal and
    /// opposite errors do not cancel as they would with plain signs.
    pub(crate) fn direction_element(&mut self) -> f64 {
        let unit = (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        self.sign() * (0.5 + 0.5 * unit)
    }
}

#[cfg(test)]
mod tests {
    use super::SplitMix64;
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn upstream_elements_and_their_doubles_are_exact_in_every_dtype() {
        let mut rng = SplitMix64::new(1);
        let values: Vec<f64> = (0..500).map(|_| rng.upstream_element()).collect();
        assert!(
            values
                .iter()
                .all(|v| v.abs() != 1.0 && (0.5..=3.0).contains(&v.abs()))
        );
        let doubled: Vec<f64> = values.iter().map(|v| 2.0 * v).collect();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for exact in [&values, &doubled] {
                let tensor = Tensor::new(exact.as_slice(), &Device::Cpu).unwrap();
                let there_and_back = tensor
                    .to_dtype(dtype)
                    .unwrap()
                    .to_dtype(DType::F64)
                    .unwrap();
                assert_eq!(
                    &there_and_back.to_vec1::<f64>().unwrap(),
                    exact,
                    "{dtype:?}"
                );
            }
        }
    }
}
