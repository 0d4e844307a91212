//! Claims about moves between lanes, bytes and memory.

use crate::{Float, Isa, Kernel, LaneNumbers, Simd, Vector};

/// Runs a check on every instruction set for both float types.
fn everywhere(check: impl Check) {
    struct Run<'a, C>(&'a C);
    impl<C: Check> Kernel for Run<'_, C> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            self.0.check::<S::F32>(s);
            self.0.check::<S::F64>(s);
        }
    }
    for isa in Isa::available() {
        isa.dispatch(Run(&check));
    }
}

trait Check {
    fn check<V: Vector>(&self, s: V::Token);
}

fn number<T: Float>(i: usize) -> T {
    T::from_f64(i as f64 + 0.5)
}

#[test]
fn compressing_moves_the_chosen_lanes_to_the_front() {
    struct Compress;
    impl Check for Compress {
        #[inline(always)]
        fn check<V: Vector>(&self, s: V::Token) {
            let data: Vec<V::Elem> = (0..V::LANES).map(number).collect();
            for bits in (0..1u32 << V::LANES).step_by(if V::LANES == 16 { 37 } else { 1 }) {
                let chosen = |i: usize| bits >> i & 1 == 1;
                let flags: Vec<V::Elem> = (0..V::LANES)
                    .map(|i| {
                        if chosen(i) {
                            V::Elem::ONE
                        } else {
                            V::Elem::ZERO
                        }
                    })
                    .collect();
                let mask = V::load(s, &flags).gt(V::splat(s, V::Elem::ZERO));
                let mut out = vec![V::Elem::ZERO; V::LANES];
                // SAFETY: the buffer holds LANES elements.
                let count = unsafe { V::load(s, &data).compress_ptr(mask, out.as_mut_ptr()) };
                let expected: Vec<V::Elem> =
                    (0..V::LANES).filter(|&i| chosen(i)).map(number).collect();
                assert_eq!(out[..count], expected);
                let mut indices = vec![0; V::LANES];
                let lanes: Vec<V::Elem> = (0..V::LANES)
                    .map(|i| V::Elem::from_f64((i << 20) as f64))
                    .collect();
                // SAFETY: as above.
                unsafe { V::load(s, &lanes).compress_u32_ptr(mask, indices.as_mut_ptr()) };
                let expected: Vec<u32> = (0..V::LANES as u32)
                    .filter(|&i| chosen(i as usize))
                    .map(|i| i << 20)
                    .collect();
                assert_eq!(indices[..count], expected);
            }
        }
    }
    everywhere(Compress);
}

#[test]
fn bytes_widen_and_narrow_without_loss_and_show_their_bits() {
    struct Bytes;
    impl Check for Bytes {
        #[inline(always)]
        fn check<V: Vector>(&self, s: V::Token) {
            let bytes: Vec<u8> = (0..=255).collect();
            for chunk in bytes.chunks_exact(V::LANES) {
                let mut back = vec![0; V::LANES];
                // SAFETY: the chunk and the buffer hold LANES bytes.
                let wide = unsafe { V::load_u8_ptr(s, chunk.as_ptr()) };
                // SAFETY: as above.
                unsafe { wide.store_u8_ptr(back.as_mut_ptr()) };
                assert_eq!(back, chunk);
                for (lane, &byte) in chunk.iter().enumerate() {
                    assert_eq!(wide.to_array()[lane].to_f64(), f64::from(byte));
                }
                for bits in [0, 1, 2, 0x81, 0xff] {
                    // SAFETY: as above.
                    let found = unsafe { V::have_bits_u8_ptr(s, chunk.as_ptr(), bits) };
                    let found = V::mask_bits(found);
                    for (lane, &byte) in chunk.iter().enumerate() {
                        assert_eq!(found >> lane & 1 == 1, byte & bits != 0);
                    }
                    assert_eq!(found >> (V::LANES - 1) >> 1, 0);
                }
            }
        }
    }
    everywhere(Bytes);
}

#[test]
fn transposing_swaps_rows_and_columns_and_touches_nothing_else() {
    struct Transpose;
    impl Check for Transpose {
        #[inline(always)]
        fn check<V: Vector>(&self, s: V::Token) {
            let (lanes, from_stride, to_stride) = (V::LANES, V::LANES + 3, V::LANES + 1);
            let from: Vec<V::Elem> = (0..lanes * from_stride).map(number).collect();
            let mut to = vec![V::Elem::ZERO; lanes * to_stride];
            // SAFETY: both buffers hold LANES rows.
            unsafe { V::transpose_ptr(s, from.as_ptr(), from_stride, to.as_mut_ptr(), to_stride) };
            for (index, &x) in to.iter().enumerate() {
                let (j, i) = (index / to_stride, index % to_stride);
                let expected = if i < lanes {
                    from[i * from_stride + j]
                } else {
                    V::Elem::ZERO
                };
                assert_eq!(x, expected);
            }
        }
    }
    everywhere(Transpose);
}

#[test]
fn unzipping_parts_even_from_odd_lanes() {
    struct Unzip;
    impl Check for Unzip {
        #[inline(always)]
        fn check<V: Vector>(&self, s: V::Token) {
            let data: Vec<V::Elem> = (0..2 * V::LANES).map(number).collect();
            let (even, odd) = V::load(s, &data).unzip(V::load(s, &data[V::LANES..]));
            let (even, odd) = (even.to_array(), odd.to_array());
            for (lane, pair) in data.chunks_exact(2).enumerate() {
                assert_eq!([even[lane], odd[lane]], *pair);
            }
        }
    }
    everywhere(Unzip);
}

#[test]
fn picking_takes_any_lanes_of_two_vectors() {
    struct Pick;
    impl Check for Pick {
        #[inline(always)]
        fn check<V: Vector>(&self, s: V::Token) {
            let data: Vec<V::Elem> = (0..2 * V::LANES).map(number).collect();
            let (first, next) = (V::load(s, &data), V::load(s, &data[V::LANES..]));
            for step in [1, 3, 5, 7] {
                for start in 0..2 * V::LANES {
                    let from = |lane: usize| (start + lane * step) % (2 * V::LANES);
                    let numbers = LaneNumbers(std::array::from_fn(|lane| from(lane) as u32));
                    let picked = first.pick(next, &numbers).to_array();
                    for (lane, picked) in picked[..V::LANES].iter().enumerate() {
                        assert_eq!(*picked, data[from(lane)]);
                    }
                }
            }
        }
    }
    everywhere(Pick);
}
