//! The portable instruction set: arrays of 8 `f32` and 4 `f64`, in safe arithmetic that the compiler vectorises.

use std::ops::{Add, BitAnd, BitOr, Div, Mul, Neg, Not, Sub};

use half::{bf16, f16};

use crate::math;
use crate::vector::{Simd, Vector};

/// Token of the portable instruction set, which every machine has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable(());

impl Portable {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self(())
    }
}

/// A truth value a lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask<const N: usize>([bool; N]);

impl<const N: usize> BitAnd for Mask<N> {
    type Output = Self;
    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }
}
impl<const N: usize> BitOr for Mask<N> {
    type Output = Self;
    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }
}
impl<const N: usize> Not for Mask<N> {
    type Output = Self;
    #[inline(always)]
    fn not(self) -> Self {
        Self(self.0.map(|b| !b))
    }
}

/// A call, not inlined: the conversion in software is long and kernels have it in many places.
#[inline(never)]
fn widen(x: [f16; 8]) -> F32x8 {
    F32x8(x.map(f16::to_f32))
}

/// A call, as [`widen`] is.
#[inline(never)]
fn narrow(x: F32x8) -> [f16; 8] {
    x.0.map(f16::from_f32)
}

impl Simd for Portable {
    type F32 = F32x8;
    type F64 = F64x4;
    const ISA: crate::Isa = crate::Isa::Portable;

    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> F32x8 {
        // SAFETY: the caller vouches for 8 elements.
        widen(unsafe { p.cast::<[f16; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store_f16(self, v: F32x8, p: *mut f16) {
        // SAFETY: the caller vouches for 8 elements.
        unsafe { p.cast::<[f16; 8]>().write_unaligned(narrow(v)) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> F32x8 {
        // SAFETY: the caller vouches for 8 elements.
        F32x8(unsafe { p.cast::<[bf16; 8]>().read_unaligned() }.map(bf16::to_f32))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, v: F32x8, p: *mut bf16) {
        // SAFETY: the caller vouches for 8 elements.
        unsafe {
            p.cast::<[bf16; 8]>()
                .write_unaligned(v.0.map(bf16::from_f32))
        }
    }
}

macro_rules! portable {
    (
        $v:ident, $t:ident, $bits:ident, $lanes:literal, $mantissa:literal, $bias:literal, $round:literal,
        $exp:ident, $exp_nonpositive:ident, $ln:ident, $tanh:ident
    ) => {
        /// A vector of the portable instruction set.
        #[derive(Clone, Copy, Debug)]
        #[repr(align(32))]
        pub(crate) struct $v([$t; $lanes]);

        impl $v {
            #[inline(always)]
            fn zip(self, other: Self, f: impl Fn($t, $t) -> $t) -> Self {
                Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
            }
            #[inline(always)]
            fn compare(self, other: Self, f: impl Fn($t, $t) -> bool) -> Mask<$lanes> {
                Mask(std::array::from_fn(|i| f(self.0[i], other.0[i])))
            }
            #[inline(always)]
            fn tree(self, f: impl Fn($t, $t) -> $t) -> $t {
                let mut lanes = self.0;
                let mut n = $lanes / 2;
                while n > 0 {
                    for i in 0..n {
                        lanes[i] = f(lanes[i], lanes[i + n]);
                    }
                    n /= 2;
                }
                lanes[0]
            }
        }

        impl Add for $v {
            type Output = Self;
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.zip(other, |a, b| a + b)
            }
        }
        impl Sub for $v {
            type Output = Self;
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.zip(other, |a, b| a - b)
            }
        }
        impl Mul for $v {
            type Output = Self;
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self.zip(other, |a, b| a * b)
            }
        }
        impl Div for $v {
            type Output = Self;
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                self.zip(other, |a, b| a / b)
            }
        }
        impl Neg for $v {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                Self(self.0.map(|a| -a))
            }
        }

        impl Vector for $v {
            type Elem = $t;
            type Token = Portable;
            type Mask = Mask<$lanes>;
            const LANES: usize = $lanes;

            #[inline(always)]
            fn token(self) -> Portable {
                Portable::new()
            }
            #[inline(always)]
            fn splat(_: Portable, x: $t) -> Self {
                Self([x; $lanes])
            }
            #[inline(always)]
            unsafe fn load_ptr(_: Portable, p: *const $t) -> Self {
                // SAFETY: the caller vouches for the elements.
                Self(unsafe { p.cast::<[$t; $lanes]>().read_unaligned() })
            }
            #[inline(always)]
            unsafe fn load_partial_ptr(_: Portable, p: *const $t, n: usize, fill: $t) -> Self {
                let mut lanes = [fill; $lanes];
                for (i, lane) in lanes.iter_mut().enumerate().take(n) {
                    // SAFETY: i < n, and the caller vouches for n elements.
                    *lane = unsafe { *p.add(i) };
                }
                Self(lanes)
            }
            #[inline(always)]
            unsafe fn store_ptr(self, p: *mut $t) {
                // SAFETY: the caller vouches for the elements.
                unsafe { p.cast::<[$t; $lanes]>().write_unaligned(self.0) }
            }
            #[inline(always)]
            unsafe fn store_partial_ptr(self, p: *mut $t, n: usize) {
                for (i, &x) in self.0.iter().enumerate().take(n) {
                    // SAFETY: i < n, and the caller vouches for n elements.
                    unsafe { p.add(i).write(x) }
                }
            }

            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                Self(std::array::from_fn(|i| {
                    // Without FMA in the target `mul_add` is a call into the C library.
                    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                        self.0[i].mul_add(a.0[i], b.0[i])
                    } else {
                        self.0[i] * a.0[i] + b.0[i]
                    }
                }))
            }
            #[inline(always)]
            fn neg_mul_add(self, a: Self, b: Self) -> Self {
                (-self).mul_add(a, b)
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                self.zip(other, |a, b| if a > b { a } else { b })
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                self.zip(other, |a, b| if a < b { a } else { b })
            }
            #[inline(always)]
            fn abs(self) -> Self {
                Self(self.0.map(|a| a.abs()))
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                Self(self.0.map(|a| a.sqrt()))
            }
            #[inline(always)]
            fn copysign(self, sign: Self) -> Self {
                self.zip(sign, |a, b| a.copysign(b))
            }
            #[inline(always)]
            fn round(self) -> Self {
                // Adding a number whose last place is 1 rounds to an integer; a larger one already is an integer.
                // `round_ties_even` is a call into the C library on the lowest x86-64.
                Self(self.0.map(|a| {
                    let rounded = (a.abs() + $round) - $round;
                    if a.abs() < $round {
                        rounded.copysign(a)
                    } else {
                        a
                    }
                }))
            }
            #[inline(always)]
            fn scale2(self, n: Self) -> Self {
                // In two steps, since one power of two does not reach from 1 to the smallest denormal.
                self.zip(n, |a, n| {
                    let n = n as i32;
                    let low = n >> 1;
                    let power = |e: i32| $t::from_bits(((e + $bias) as $bits) << $mantissa);
                    a * power(low) * power(n - low)
                })
            }
            #[inline(always)]
            fn split2(self) -> (Self, Self) {
                // Half a binade is added before the exponent is read, so that m lies around 1.
                const HALF: $bits = 1 << ($mantissa - 1);
                const EXPONENT: $bits = !((1 << $mantissa) - 1);
                const ONE: $bits = $bias << $mantissa;
                let e = self
                    .0
                    .map(|a| (a.to_bits().wrapping_add(HALF) & EXPONENT).wrapping_sub(ONE));
                let m =
                    std::array::from_fn(|i| $t::from_bits(self.0[i].to_bits().wrapping_sub(e[i])));
                // The exponent field, as a signed number.
                (
                    Self(m),
                    Self(e.map(|e| {
                        ((e as i64) << (64 - $bits::BITS) >> (64 - $bits::BITS) >> $mantissa) as $t
                    })),
                )
            }

            #[inline(always)]
            fn lt(self, other: Self) -> Mask<$lanes> {
                self.compare(other, |a, b| a < b)
            }
            #[inline(always)]
            fn le(self, other: Self) -> Mask<$lanes> {
                self.compare(other, |a, b| a <= b)
            }
            #[inline(always)]
            fn eq(self, other: Self) -> Mask<$lanes> {
                self.compare(other, |a, b| a == b)
            }
            #[inline(always)]
            fn first(_: Portable, n: usize) -> Mask<$lanes> {
                Mask(std::array::from_fn(|i| i < n))
            }
            #[inline(always)]
            fn select(self, mask: Mask<$lanes>, other: Self) -> Self {
                Self(std::array::from_fn(|i| {
                    if mask.0[i] { self.0[i] } else { other.0[i] }
                }))
            }
            #[inline(always)]
            fn mask_bits(mask: Mask<$lanes>) -> u32 {
                mask.0
                    .iter()
                    .enumerate()
                    .map(|(i, &b)| u32::from(b) << i)
                    .sum()
            }
            #[inline(always)]
            fn reduce_add(self) -> $t {
                self.tree(|a, b| a + b)
            }
            #[inline(always)]
            fn reduce_max(self) -> $t {
                self.tree(|a, b| if a > b { a } else { b })
            }
            #[inline(always)]
            fn reduce_min(self) -> $t {
                self.tree(|a, b| if a < b { a } else { b })
            }
            #[inline(always)]
            fn exp(self) -> Self {
                math::$exp(self)
            }
            #[inline(always)]
            fn exp_nonpositive(self) -> Self {
                math::$exp_nonpositive(self)
            }
            #[inline(always)]
            fn ln(self) -> Self {
                math::$ln(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                math::$tanh(self)
            }
        }
    };
}

portable!(
    F32x8,
    f32,
    u32,
    8,
    23,
    127,
    8_388_608.0,
    exp_f32,
    exp_nonpositive_f32,
    ln_f32,
    tanh_f32
);
portable!(
    F64x4,
    f64,
    u64,
    4,
    52,
    1023,
    4_503_599_627_370_496.0,
    exp_f64,
    exp_f64,
    ln_f64,
    tanh_f64
);
