//! Conversions of f16 and bf16 agree with the `half` crate to the bit.

use half::{bf16, f16};

use crate::{Element, Isa, Kernel, Simd, Vector};

/// Widens all of `data`, in whole vectors and a partial one.
struct Widen<'a, E>(&'a [E]);
impl<E: Element<Compute = f32>> Kernel for Widen<'_, E> {
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let mut out = vec![0.0; self.0.len()];
        for (x, y) in self
            .0
            .chunks(S::F32::LANES)
            .zip(out.chunks_mut(S::F32::LANES))
        {
            // SAFETY: the pointers come from slices of the length that is read.
            let v = unsafe {
                if x.len() == S::F32::LANES {
                    E::load_ptr(s, x.as_ptr())
                } else {
                    E::load_partial_ptr(s, x.as_ptr(), x.len(), f32::NEG_INFINITY)
                }
            };
            v.store_partial(y);
            assert!(
                v.to_array()[x.len()..S::F32::LANES]
                    .iter()
                    .all(|&x| x == f32::NEG_INFINITY)
            );
        }
        out
    }
}

/// Rounds all of `data`, in whole vectors and a partial one.
struct Narrow<'a, E>(&'a [f32], std::marker::PhantomData<E>);
impl<E: Element<Compute = f32>> Kernel for Narrow<'_, E> {
    type Output = Vec<E>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<E> {
        let mut out = vec![E::default(); self.0.len()];
        for (x, y) in self
            .0
            .chunks(S::F32::LANES)
            .zip(out.chunks_mut(S::F32::LANES))
        {
            let v = S::F32::load_partial(s, x, 1.0);
            // SAFETY: the pointers come from slices of the length that is written.
            unsafe {
                if y.len() == S::F32::LANES {
                    E::store_ptr(s, v, y.as_mut_ptr());
                } else {
                    E::store_partial_ptr(s, v, y.as_mut_ptr(), y.len());
                }
            }
        }
        out
    }
}

/// Bit patterns of f32 of every exponent and of mantissas around each rounding decision.
fn patterns() -> Vec<f32> {
    let mut bits = Vec::new();
    for exponent in 0..256u32 {
        for shift in [12, 13, 15, 16] {
            for top in [0u32, 1, 2, 3, 0x155, 0x3ff] {
                for low in [
                    0u32,
                    1,
                    (1 << shift) - 1,
                    1 << (shift - 1),
                    (1 << (shift - 1)) + 1,
                    (1 << (shift - 1)) - 1,
                ] {
                    let mantissa = ((top << shift) | low) & 0x7f_ffff;
                    bits.push((exponent << 23) | mantissa);
                    bits.push((1 << 31) | (exponent << 23) | mantissa);
                }
            }
        }
    }
    // A prime stride through everything else.
    bits.extend((0..=u32::MAX).step_by(104_729));
    bits.into_iter().map(f32::from_bits).collect()
}

#[test]
fn widening_matches_half_for_every_value() {
    for isa in Isa::available() {
        let data: Vec<f16> = (0..=u16::MAX)
            .map(f16::from_bits)
            .chain([f16::ONE; 5])
            .collect();
        for (x, y) in data.iter().zip(isa.dispatch(Widen(&data))) {
            let same = x.to_f32().to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
            assert!(same, "{}: {:#x} gave {y}", isa.name(), x.to_bits());
        }
        let data: Vec<bf16> = (0..=u16::MAX)
            .map(bf16::from_bits)
            .chain([bf16::ONE; 5])
            .collect();
        for (x, y) in data.iter().zip(isa.dispatch(Widen(&data))) {
            let same = x.to_f32().to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
            assert!(same, "{}: {:#x} gave {y}", isa.name(), x.to_bits());
        }
    }
}

#[test]
fn rounding_matches_half_to_the_bit() {
    let data = patterns();
    for isa in Isa::available() {
        let name = isa.name();
        for (x, y) in data
            .iter()
            .zip(isa.dispatch(Narrow::<f16>(&data, std::marker::PhantomData)))
        {
            assert_eq!(
                f16::from_f32(*x).to_bits(),
                y.to_bits(),
                "{name}: {:#x}",
                x.to_bits()
            );
        }
        for (x, y) in data
            .iter()
            .zip(isa.dispatch(Narrow::<bf16>(&data, std::marker::PhantomData)))
        {
            assert_eq!(
                bf16::from_f32(*x).to_bits(),
                y.to_bits(),
                "{name}: {:#x}",
                x.to_bits()
            );
        }
    }
}
