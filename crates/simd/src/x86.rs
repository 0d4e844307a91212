//! AVX-512 and AVX2: each operation is one or a few intrinsics.
//!
//! A token is made only where its features were detected, and a vector only from a token, so every intrinsic below runs
//! where it exists; `x86!` holds that argument once.

use std::arch::x86_64::*;
use std::ops::{Add, BitAnd, BitOr, Div, Mul, Neg, Not, Sub};

use half::{bf16, f16};

use crate::math;
use crate::vector::{LaneNumbers, Simd, Vector};

/// Runs intrinsics of the instruction set whose token or vector is at hand.
macro_rules! x86 {
    ($e:expr) => {{
        // SAFETY: the token or the vector in scope proves that the machine has the instructions; where a pointer is
        // used, the caller of the unsafe method vouches for it, or it is that of 16 `LaneNumbers`.
        unsafe { $e }
    }};
}

/// Token of AVX-512 F, BW, DQ and VL with FMA, F16C and POPCNT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The machine has the features.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        Self(())
    }
}

/// Token of AVX2 with FMA, F16C and POPCNT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The machine has the features.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        Self(())
    }
}

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

impl Simd for Avx512 {
    type F32 = F32x16;
    type F64 = F64x8;
    const ISA: crate::Isa = crate::Isa::Avx512;

    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> F32x16 {
        x86!(F32x16(_mm512_cvtph_ps(_mm256_loadu_si256(p.cast()))))
    }
    #[inline(always)]
    unsafe fn store_f16(self, v: F32x16, p: *mut f16) {
        x86!(_mm256_storeu_si256(
            p.cast(),
            _mm512_cvtps_ph::<NEAREST>(v.0)
        ))
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> F32x16 {
        x86!({
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            F32x16(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        })
    }
    #[inline(always)]
    unsafe fn store_bf16(self, v: F32x16, p: *mut bf16) {
        x86!({
            let bits = _mm512_castps_si512(v.0);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            // Rounding a NaN could turn it into infinity: it is cut and made quiet instead.
            let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v.0, v.0);
            let result = _mm512_srli_epi32::<16>(_mm512_mask_blend_epi32(nan, rounded, quiet));
            _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(result));
        })
    }
}

impl Simd for Avx2 {
    type F32 = F32x8;
    type F64 = F64x4;
    const ISA: crate::Isa = crate::Isa::Avx2;

    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> F32x8 {
        x86!(F32x8(_mm256_cvtph_ps(_mm_loadu_si128(p.cast()))))
    }
    #[inline(always)]
    unsafe fn store_f16(self, v: F32x8, p: *mut f16) {
        x86!(_mm_storeu_si128(
            p.cast(),
            _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v.0)
        ))
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> F32x8 {
        x86!({
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            F32x8(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide)))
        })
    }
    #[inline(always)]
    unsafe fn store_bf16(self, v: F32x8, p: *mut bf16) {
        x86!({
            let bits = _mm256_castps_si256(v.0);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v.0, v.0));
            let result = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
            let packed = _mm_packus_epi32(
                _mm256_castsi256_si128(result),
                _mm256_extracti128_si256::<1>(result),
            );
            _mm_storeu_si128(p.cast(), packed);
        })
    }
}

/// What the four vector types share, and the methods of one type in the last braces.
macro_rules! x86_vector {
    (
        $v:ident, $token:ident, $t:ident, $raw:ident, $lanes:literal, $mask:ty,
        arithmetic: $add:ident $sub:ident $mul:ident $div:ident $fmadd:ident $fnmadd:ident $max:ident $min:ident $sqrt:ident,
        moves: $set1:ident $loadu:ident $storeu:ident,
        math: $exp:ident $exp_nonpositive:path, $ln:ident $tanh:ident,
        { $($specific:tt)* }
    ) => {
        /// A vector of the instruction set that its token names.
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $v($raw);

        impl Add for $v {
            type Output = Self;
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                x86!(Self($add(self.0, other.0)))
            }
        }
        impl Sub for $v {
            type Output = Self;
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                x86!(Self($sub(self.0, other.0)))
            }
        }
        impl Mul for $v {
            type Output = Self;
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                x86!(Self($mul(self.0, other.0)))
            }
        }
        impl Div for $v {
            type Output = Self;
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                x86!(Self($div(self.0, other.0)))
            }
        }
        impl Neg for $v {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                self.flip_sign()
            }
        }

        impl Vector for $v {
            type Elem = $t;
            type Token = $token;
            type Mask = $mask;
            const LANES: usize = $lanes;

            #[inline(always)]
            fn token(self) -> $token {
                $token(())
            }
            #[inline(always)]
            fn splat(_: $token, x: $t) -> Self {
                x86!(Self($set1(x)))
            }
            #[inline(always)]
            unsafe fn load_ptr(_: $token, p: *const $t) -> Self {
                x86!(Self($loadu(p)))
            }
            #[inline(always)]
            unsafe fn store_ptr(self, p: *mut $t) {
                x86!($storeu(p, self.0))
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                x86!(Self($fmadd(self.0, a.0, b.0)))
            }
            #[inline(always)]
            fn neg_mul_add(self, a: Self, b: Self) -> Self {
                x86!(Self($fnmadd(self.0, a.0, b.0)))
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                x86!(Self($max(self.0, other.0)))
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                x86!(Self($min(self.0, other.0)))
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                x86!(Self($sqrt(self.0)))
            }
            #[inline(always)]
            fn exp(self) -> Self {
                math::$exp(self)
            }
            #[inline(always)]
            fn exp_nonpositive(self) -> Self {
                $exp_nonpositive(self)
            }
            #[inline(always)]
            fn ln(self) -> Self {
                math::$ln(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                math::$tanh(self)
            }
            $($specific)*
        }
    };
}

/// What the two AVX-512 types have beyond [`x86_vector!`].
macro_rules! avx512_vector {
    (
        $v:ident, $t:ident, $raw:ident, $half:ident, $lanes:literal, $mask:ident, $exp:ident, $exp_nonpositive:path, $ln:ident, $tanh:ident,
        arithmetic: $add:ident $sub:ident $mul:ident $div:ident $fmadd:ident $fnmadd:ident $max:ident $min:ident $sqrt:ident,
        moves: $set1:ident $loadu:ident $storeu:ident $mask_loadu:ident $mask_storeu:ident,
        bits: $and:ident $andnot:ident $or:ident $xor:ident,
        rest: $abs:ident $round:ident $scalef:ident $getmant:ident $getexp:ident $cmp:ident $blend:ident $low:ident $high:ident
            $compress:ident,
        { $($specific:tt)* }
    ) => {
        impl $v {
            #[inline(always)]
            fn flip_sign(self) -> Self {
                x86!(Self($xor(self.0, $set1(-0.0))))
            }
            #[inline(always)]
            fn halves(self) -> ($half, $half) {
                x86!(($half($low(self.0)), $half($high::<1>(self.0))))
            }
            #[inline(always)]
            fn first_lanes(n: usize) -> $mask {
                debug_assert!(n <= $lanes);
                ((1u32 << n) - 1) as $mask
            }
        }
        x86_vector! {
            $v, Avx512, $t, $raw, $lanes, $mask,
            arithmetic: $add $sub $mul $div $fmadd $fnmadd $max $min $sqrt,
            moves: $set1 $loadu $storeu,
            math: $exp $exp_nonpositive, $ln $tanh,
            {
                #[inline(always)]
                unsafe fn load_partial_ptr(_: Avx512, p: *const $t, n: usize, fill: $t) -> Self {
                    x86!(Self($mask_loadu($set1(fill), Self::first_lanes(n), p)))
                }
                #[inline(always)]
                unsafe fn store_partial_ptr(self, p: *mut $t, n: usize) {
                    x86!($mask_storeu(p, Self::first_lanes(n), self.0))
                }
                #[inline(always)]
                fn abs(self) -> Self {
                    x86!(Self($abs(self.0)))
                }
                #[inline(always)]
                fn copysign(self, sign: Self) -> Self {
                    x86!({
                        let bit = $set1(-0.0);
                        Self($or($andnot(bit, self.0), $and(bit, sign.0)))
                    })
                }
                #[inline(always)]
                fn round(self) -> Self {
                    x86!(Self($round::<NEAREST>(self.0)))
                }
                #[inline(always)]
                fn scale2(self, n: Self) -> Self {
                    x86!(Self($scalef(self.0, n.0)))
                }
                #[inline(always)]
                fn split2(self) -> (Self, Self) {
                    x86!({
                        let m = Self($getmant::<_MM_MANT_NORM_P75_1P5, _MM_MANT_SIGN_ZERO>(self.0));
                        let floor = Self($getexp(self.0));
                        // A mantissa from 1.5 on was halved into [0.75, 1).
                        let one = Self($set1(1.0));
                        let e = (floor + one).select(m.lt(one), floor);
                        (m, e)
                    })
                }
                #[inline(always)]
                fn lt(self, other: Self) -> $mask {
                    x86!($cmp::<_CMP_LT_OQ>(self.0, other.0))
                }
                #[inline(always)]
                fn le(self, other: Self) -> $mask {
                    x86!($cmp::<_CMP_LE_OQ>(self.0, other.0))
                }
                #[inline(always)]
                fn eq(self, other: Self) -> $mask {
                    x86!($cmp::<_CMP_EQ_OQ>(self.0, other.0))
                }
                #[inline(always)]
                fn first(_: Avx512, n: usize) -> $mask {
                    Self::first_lanes(n)
                }
                #[inline(always)]
                fn select(self, mask: $mask, other: Self) -> Self {
                    x86!(Self($blend(mask, other.0, self.0)))
                }
                #[inline(always)]
                fn mask_bits(mask: $mask) -> u32 {
                    mask.into()
                }
                #[inline(always)]
                fn reduce_add(self) -> $t {
                    let (low, high) = self.halves();
                    (low + high).reduce_add()
                }
                #[inline(always)]
                fn reduce_max(self) -> $t {
                    let (low, high) = self.halves();
                    low.max(high).reduce_max()
                }
                #[inline(always)]
                fn reduce_min(self) -> $t {
                    let (low, high) = self.halves();
                    low.min(high).reduce_min()
                }
                #[inline(always)]
                unsafe fn compress_ptr(self, mask: $mask, p: *mut $t) -> usize {
                    // Compressing in a register and writing all of it is faster than the masked write to memory.
                    x86!($storeu(p, $compress(mask, self.0)));
                    mask.count_ones() as usize
                }
                $($specific)*
            }
        }
    };
}

avx512_vector! {
    F32x16, f32, __m512, F32x8, 16, __mmask16, exp_f32, exp_nonpositive_f32x16, ln_f32, tanh_f32,
    arithmetic: _mm512_add_ps _mm512_sub_ps _mm512_mul_ps _mm512_div_ps _mm512_fmadd_ps _mm512_fnmadd_ps
        _mm512_max_ps _mm512_min_ps _mm512_sqrt_ps,
    moves: _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_mask_loadu_ps
        _mm512_mask_storeu_ps,
    bits: _mm512_and_ps _mm512_andnot_ps _mm512_or_ps _mm512_xor_ps,
    rest: _mm512_abs_ps _mm512_roundscale_ps _mm512_scalef_ps _mm512_getmant_ps _mm512_getexp_ps
        _mm512_cmp_ps_mask _mm512_mask_blend_ps _mm512_castps512_ps256 _mm512_extractf32x8_ps
        _mm512_maskz_compress_ps,
    {
        #[inline(always)]
        unsafe fn compress_u32_ptr(self, mask: __mmask16, p: *mut u32) {
            x86!(_mm512_storeu_si512(p.cast(), _mm512_maskz_compress_epi32(mask, _mm512_cvtps_epi32(self.0))))
        }
        #[inline(always)]
        unsafe fn have_bits_u8_ptr(_: Avx512, p: *const u8, bits: u8) -> __mmask16 {
            x86!(_mm_test_epi8_mask(_mm_loadu_si128(p.cast()), _mm_set1_epi8(bits.cast_signed())))
        }
        #[inline(always)]
        unsafe fn load_u8_ptr(_: Avx512, p: *const u8) -> Self {
            x86!(Self(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())))))
        }
        #[inline(always)]
        unsafe fn store_u8_ptr(self, p: *mut u8) {
            x86!(_mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0))))
        }
        #[inline(always)]
        fn unzip(self, next: Self) -> (Self, Self) {
            x86!({
                let even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
                let odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
                (
                    Self(_mm512_permutex2var_ps(self.0, even, next.0)),
                    Self(_mm512_permutex2var_ps(self.0, odd, next.0)),
                )
            })
        }
        #[inline(always)]
        fn pick(self, next: Self, from: &LaneNumbers) -> Self {
            x86!({
                let from = _mm512_loadu_si512(from.0.as_ptr().cast());
                Self(_mm512_permutex2var_ps(self.0, from, next.0))
            })
        }
        #[inline(always)]
        fn exp_nonpositive_for_half(self) -> Self {
            exp2_floored(self, &math::EXP2_FLOORED_FOR_HALF)
        }
        #[inline(always)]
        unsafe fn transpose_ptr(_: Avx512, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
            x86!(transpose_16(from, from_stride, to, to_stride))
        }
    }
}

#[inline(always)]
fn exp_nonpositive_f32x16(x: F32x16) -> F32x16 {
    exp2_floored(x, &math::EXP2_FLOORED)
}

/// As [`math::exp_nonpositive_f32`], with one instruction each for fraction and scaling; both round down, and take
/// infinity as it comes.
#[inline(always)]
fn exp2_floored(x: F32x16, polynomial: &[f32]) -> F32x16 {
    const FLOOR: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
    let y = x * F32x16::splat(x.token(), std::f32::consts::LOG2_E);
    let fraction = x86!(F32x16(_mm512_reduce_ps::<FLOOR>(y.0)));
    let p = math::horner(fraction, polynomial);
    x86!(F32x16(_mm512_scalef_ps(p.0, y.0)))
}

avx512_vector! {
    F64x8, f64, __m512d, F64x4, 8, __mmask8, exp_f64, math::exp_f64, ln_f64, tanh_f64,
    arithmetic: _mm512_add_pd _mm512_sub_pd _mm512_mul_pd _mm512_div_pd _mm512_fmadd_pd _mm512_fnmadd_pd
        _mm512_max_pd _mm512_min_pd _mm512_sqrt_pd,
    moves: _mm512_set1_pd _mm512_loadu_pd _mm512_storeu_pd _mm512_mask_loadu_pd
        _mm512_mask_storeu_pd,
    bits: _mm512_and_pd _mm512_andnot_pd _mm512_or_pd _mm512_xor_pd,
    rest: _mm512_abs_pd _mm512_roundscale_pd _mm512_scalef_pd _mm512_getmant_pd _mm512_getexp_pd
        _mm512_cmp_pd_mask _mm512_mask_blend_pd _mm512_castpd512_pd256 _mm512_extractf64x4_pd
        _mm512_maskz_compress_pd,
    {
        #[inline(always)]
        unsafe fn compress_u32_ptr(self, mask: __mmask8, p: *mut u32) {
            x86!(_mm256_storeu_si256(p.cast(), _mm256_maskz_compress_epi32(mask, _mm512_cvtpd_epi32(self.0))))
        }
        #[inline(always)]
        fn unzip(self, next: Self) -> (Self, Self) {
            x86!({
                let even = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
                let odd = _mm512_or_si512(even, _mm512_set1_epi64(1));
                (
                    Self(_mm512_permutex2var_pd(self.0, even, next.0)),
                    Self(_mm512_permutex2var_pd(self.0, odd, next.0)),
                )
            })
        }
        #[inline(always)]
        fn pick(self, next: Self, from: &LaneNumbers) -> Self {
            x86!({
                let from = _mm512_cvtepu32_epi64(_mm256_loadu_si256(from.0.as_ptr().cast()));
                Self(_mm512_permutex2var_pd(self.0, from, next.0))
            })
        }
    }
}

/// All ones, then all zeros: eight words from `8 - n` on are the mask of the first n lanes.
static FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// For each mask of eight lanes, the chosen ones one behind the other.
static CHOSEN: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut count) = (0, 0);
        while lane < 8 {
            if mask >> lane & 1 == 1 {
                table[mask][count] = lane as u8;
                count += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
};

/// What the two AVX2 types have beyond [`x86_vector!`].
macro_rules! avx2_vector {
    (
        $v:ident, $mask:ident, $t:ident, $raw:ident, $lanes:literal, $exp:ident, $exp_nonpositive:path, $ln:ident, $tanh:ident,
        arithmetic: $add:ident $sub:ident $mul:ident $div:ident $fmadd:ident $fnmadd:ident $max:ident $min:ident $sqrt:ident,
        moves: $set1:ident $loadu:ident $storeu:ident $maskload:ident $maskstore:ident,
        bits: $and:ident $andnot:ident $or:ident $xor:ident $ones:expr,
        rest: $round:ident $cmp:ident $blendv:ident $movemask:ident $low:ident $cast:ident,
        { $($specific:tt)* }
    ) => {
        /// A truth value a lane: all bits set or none.
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $mask($raw);

        impl BitAnd for $mask {
            type Output = Self;
            #[inline(always)]
            fn bitand(self, other: Self) -> Self {
                x86!(Self($and(self.0, other.0)))
            }
        }
        impl BitOr for $mask {
            type Output = Self;
            #[inline(always)]
            fn bitor(self, other: Self) -> Self {
                x86!(Self($or(self.0, other.0)))
            }
        }
        impl Not for $mask {
            type Output = Self;
            #[inline(always)]
            fn not(self) -> Self {
                x86!(Self($xor(self.0, $ones)))
            }
        }

        impl $v {
            #[inline(always)]
            fn flip_sign(self) -> Self {
                x86!(Self($xor(self.0, $set1(-0.0))))
            }
            /// The mask of the first `n` lanes as `maskload` wants it.
            #[inline(always)]
            fn first_lanes(n: usize) -> __m256i {
                assert!(n <= $lanes);
                let words = n * 8 / $lanes;
                // SAFETY: words is at most 8, so eight of the sixteen words are left from 8 - words on.
                x86!(_mm256_loadu_si256(FIRST.as_ptr().add(8 - words).cast()))
            }
        }

        x86_vector! {
            $v, Avx2, $t, $raw, $lanes, $mask,
            arithmetic: $add $sub $mul $div $fmadd $fnmadd $max $min $sqrt,
            moves: $set1 $loadu $storeu,
            math: $exp $exp_nonpositive, $ln $tanh,
            {
                #[inline(always)]
                unsafe fn load_partial_ptr(_: Avx2, p: *const $t, n: usize, fill: $t) -> Self {
                    x86!({
                        let first = Self::first_lanes(n);
                        Self($blendv($set1(fill), $maskload(p, first), $cast(first)))
                    })
                }
                #[inline(always)]
                unsafe fn store_partial_ptr(self, p: *mut $t, n: usize) {
                    x86!($maskstore(p, Self::first_lanes(n), self.0))
                }
                #[inline(always)]
                fn abs(self) -> Self {
                    x86!(Self($andnot($set1(-0.0), self.0)))
                }
                #[inline(always)]
                fn copysign(self, sign: Self) -> Self {
                    x86!({
                        let bit = $set1(-0.0);
                        Self($or($andnot(bit, self.0), $and(bit, sign.0)))
                    })
                }
                #[inline(always)]
                fn round(self) -> Self {
                    x86!(Self($round::<NEAREST>(self.0)))
                }
                #[inline(always)]
                fn lt(self, other: Self) -> $mask {
                    x86!($mask($cmp::<_CMP_LT_OQ>(self.0, other.0)))
                }
                #[inline(always)]
                fn le(self, other: Self) -> $mask {
                    x86!($mask($cmp::<_CMP_LE_OQ>(self.0, other.0)))
                }
                #[inline(always)]
                fn eq(self, other: Self) -> $mask {
                    x86!($mask($cmp::<_CMP_EQ_OQ>(self.0, other.0)))
                }
                #[inline(always)]
                fn first(_: Avx2, n: usize) -> $mask {
                    x86!($mask($cast(Self::first_lanes(n))))
                }
                #[inline(always)]
                fn select(self, mask: $mask, other: Self) -> Self {
                    x86!(Self($blendv(other.0, self.0, mask.0)))
                }
                #[inline(always)]
                fn mask_bits(mask: $mask) -> u32 {
                    x86!($movemask(mask.0)) as u32
                }
                $($specific)*
            }
        }
    };
}

avx2_vector! {
    F32x8, Mask32x8, f32, __m256, 8, exp_f32, math::exp_nonpositive_f32, ln_f32, tanh_f32,
    arithmetic: _mm256_add_ps _mm256_sub_ps _mm256_mul_ps _mm256_div_ps _mm256_fmadd_ps _mm256_fnmadd_ps
        _mm256_max_ps _mm256_min_ps _mm256_sqrt_ps,
    moves: _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_maskload_ps _mm256_maskstore_ps,
    bits: _mm256_and_ps _mm256_andnot_ps _mm256_or_ps _mm256_xor_ps _mm256_castsi256_ps(_mm256_set1_epi32(-1)),
    rest: _mm256_round_ps _mm256_cmp_ps _mm256_blendv_ps _mm256_movemask_ps _mm256_castps256_ps128 _mm256_castsi256_ps,
    {
        #[inline(always)]
        fn scale2(self, n: Self) -> Self {
            // In two steps, since one power of two does not reach from 1 to the smallest denormal.
            x86!({
                let n = _mm256_cvtps_epi32(n.0);
                let low = _mm256_srai_epi32::<1>(n);
                let high = _mm256_sub_epi32(n, low);
                let bias = _mm256_set1_epi32(127);
                let power = |e| Self(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(e, bias))));
                self * power(low) * power(high)
            })
        }
        #[inline(always)]
        unsafe fn compress_ptr(self, mask: Mask32x8, p: *mut f32) -> usize {
            let bits = Self::mask_bits(mask);
            x86!({
                let chosen = _mm_loadl_epi64(CHOSEN[bits as usize & 255].as_ptr().cast());
                _mm256_storeu_ps(p, _mm256_permutevar8x32_ps(self.0, _mm256_cvtepu8_epi32(chosen)));
            });
            bits.count_ones() as usize
        }
        #[inline(always)]
        unsafe fn compress_u32_ptr(self, mask: Mask32x8, p: *mut u32) {
            x86!({
                let chosen = _mm_loadl_epi64(CHOSEN[Self::mask_bits(mask) as usize & 255].as_ptr().cast());
                let lanes = _mm256_cvtps_epi32(self.0);
                _mm256_storeu_si256(p.cast(), _mm256_permutevar8x32_epi32(lanes, _mm256_cvtepu8_epi32(chosen)));
            })
        }
        #[inline(always)]
        unsafe fn load_u8_ptr(_: Avx2, p: *const u8) -> Self {
            x86!(Self(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())))))
        }
        #[inline(always)]
        unsafe fn store_u8_ptr(self, p: *mut u8) {
            x86!({
                let wide = _mm256_cvtps_epi32(self.0);
                let words = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256::<1>(wide));
                _mm_storel_epi64(p.cast(), _mm_packus_epi16(words, words));
            })
        }
        #[inline(always)]
        fn unzip(self, next: Self) -> (Self, Self) {
            x86!({
                // Within halves of 128 bits, then the pairs of lanes in order.
                let pairs = |x| Self(_mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_castps_pd(x))));
                (
                    pairs(_mm256_shuffle_ps::<0b10_00_10_00>(self.0, next.0)),
                    pairs(_mm256_shuffle_ps::<0b11_01_11_01>(self.0, next.0)),
                )
            })
        }
        #[inline(always)]
        fn exp_nonpositive_for_half(self) -> Self {
            math::exp_nonpositive_for_half_f32(self)
        }
        #[inline(always)]
        unsafe fn transpose_ptr(_: Avx2, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
            x86!(transpose_8(from, from_stride, to, to_stride))
        }
        #[inline(always)]
        fn split2(self) -> (Self, Self) {
            // Half a binade is added before the exponent is read, so that m lies around 1.
            x86!({
                let bits = _mm256_castps_si256(self.0);
                let half = _mm256_set1_epi32(1 << 22);
                let e = _mm256_sub_epi32(
                    _mm256_srli_epi32::<23>(_mm256_add_epi32(bits, half)),
                    _mm256_set1_epi32(127),
                );
                let m = _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32::<23>(e)));
                (Self(m), Self(_mm256_cvtepi32_ps(e)))
            })
        }
        #[inline(always)]
        fn reduce_add(self) -> f32 {
            x86!({
                let x = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
                let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
                _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
            })
        }
        #[inline(always)]
        fn reduce_max(self) -> f32 {
            x86!({
                let x = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
                let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
                _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps::<1>(x, x)))
            })
        }
        #[inline(always)]
        fn reduce_min(self) -> f32 {
            x86!({
                let x = _mm_min_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
                let x = _mm_min_ps(x, _mm_movehl_ps(x, x));
                _mm_cvtss_f32(_mm_min_ss(x, _mm_shuffle_ps::<1>(x, x)))
            })
        }
    }
}

avx2_vector! {
    F64x4, Mask64x4, f64, __m256d, 4, exp_f64, math::exp_f64, ln_f64, tanh_f64,
    arithmetic: _mm256_add_pd _mm256_sub_pd _mm256_mul_pd _mm256_div_pd _mm256_fmadd_pd _mm256_fnmadd_pd
        _mm256_max_pd _mm256_min_pd _mm256_sqrt_pd,
    moves: _mm256_set1_pd _mm256_loadu_pd _mm256_storeu_pd _mm256_maskload_pd _mm256_maskstore_pd,
    bits: _mm256_and_pd _mm256_andnot_pd _mm256_or_pd _mm256_xor_pd _mm256_castsi256_pd(_mm256_set1_epi32(-1)),
    rest: _mm256_round_pd _mm256_cmp_pd _mm256_blendv_pd _mm256_movemask_pd _mm256_castpd256_pd128 _mm256_castsi256_pd,
    {
        #[inline(always)]
        fn unzip(self, next: Self) -> (Self, Self) {
            x86!((
                Self(_mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_unpacklo_pd(self.0, next.0))),
                Self(_mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_unpackhi_pd(self.0, next.0))),
            ))
        }
        #[inline(always)]
        fn scale2(self, n: Self) -> Self {
            x86!({
                let n = _mm256_cvtpd_epi32(n.0);
                let low = _mm_srai_epi32::<1>(n);
                let high = _mm_sub_epi32(n, low);
                let bias = _mm256_set1_epi64x(1023);
                let power = |e| {
                    let biased = _mm256_add_epi64(_mm256_cvtepi32_epi64(e), bias);
                    Self(_mm256_castsi256_pd(_mm256_slli_epi64::<52>(biased)))
                };
                self * power(low) * power(high)
            })
        }
        #[inline(always)]
        fn split2(self) -> (Self, Self) {
            x86!({
                let bits = _mm256_castpd_si256(self.0);
                let biased = _mm256_srli_epi64::<52>(_mm256_add_epi64(bits, _mm256_set1_epi64x(1 << 51)));
                let e = _mm256_sub_epi64(biased, _mm256_set1_epi64x(1023));
                let m = _mm256_castsi256_pd(_mm256_sub_epi64(bits, _mm256_slli_epi64::<52>(e)));
                // AVX2 has no conversion from i64: the biased exponent is placed into the mantissa of 2^52.
                let magic = _mm256_castpd_si256(_mm256_set1_pd(4_503_599_627_370_496.0));
                let e = _mm256_castsi256_pd(_mm256_or_si256(biased, magic));
                (Self(m), Self(e) - Self(_mm256_set1_pd(4_503_599_627_370_496.0 + 1023.0)))
            })
        }
        #[inline(always)]
        fn reduce_add(self) -> f64 {
            x86!({
                let x = _mm_add_pd(_mm256_castpd256_pd128(self.0), _mm256_extractf128_pd::<1>(self.0));
                _mm_cvtsd_f64(_mm_add_sd(x, _mm_unpackhi_pd(x, x)))
            })
        }
        #[inline(always)]
        fn reduce_max(self) -> f64 {
            x86!({
                let x = _mm_max_pd(_mm256_castpd256_pd128(self.0), _mm256_extractf128_pd::<1>(self.0));
                _mm_cvtsd_f64(_mm_max_sd(x, _mm_unpackhi_pd(x, x)))
            })
        }
        #[inline(always)]
        fn reduce_min(self) -> f64 {
            x86!({
                let x = _mm_min_pd(_mm256_castpd256_pd128(self.0), _mm256_extractf128_pd::<1>(self.0));
                _mm_cvtsd_f64(_mm_min_sd(x, _mm_unpackhi_pd(x, x)))
            })
        }
    }
}

/// Transposes 16 by 16 floats: pairs and quads inside the 128-bit quarters, then the quarters.
///
/// # Safety
/// The machine has AVX-512 F; the rest is as for [`Vector::transpose_ptr`].
#[inline(always)]
unsafe fn transpose_16(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: the caller vouches for the instructions, and for sixteen rows of sixteen elements on both sides.
    unsafe {
        let mut rows = [_mm512_setzero_ps(); 16];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = _mm512_loadu_ps(from.add(i * from_stride));
        }
        let mut pairs = rows;
        for i in 0..8 {
            pairs[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
        }
        // quads[4 * i + k] holds columns k, 4 + k, 8 + k and 12 + k of rows 4 * i to 4 * i + 3.
        let mut quads = pairs;
        for i in 0..4 {
            let [a, b, c, d] = [
                pairs[4 * i],
                pairs[4 * i + 1],
                pairs[4 * i + 2],
                pairs[4 * i + 3],
            ];
            quads[4 * i] = _mm512_shuffle_ps::<0x44>(a, c);
            quads[4 * i + 1] = _mm512_shuffle_ps::<0xee>(a, c);
            quads[4 * i + 2] = _mm512_shuffle_ps::<0x44>(b, d);
            quads[4 * i + 3] = _mm512_shuffle_ps::<0xee>(b, d);
        }
        for k in 0..4 {
            let low_even = _mm512_shuffle_f32x4::<0x88>(quads[k], quads[4 + k]);
            let low_odd = _mm512_shuffle_f32x4::<0xdd>(quads[k], quads[4 + k]);
            let high_even = _mm512_shuffle_f32x4::<0x88>(quads[8 + k], quads[12 + k]);
            let high_odd = _mm512_shuffle_f32x4::<0xdd>(quads[8 + k], quads[12 + k]);
            let columns = [
                _mm512_shuffle_f32x4::<0x88>(low_even, high_even),
                _mm512_shuffle_f32x4::<0x88>(low_odd, high_odd),
                _mm512_shuffle_f32x4::<0xdd>(low_even, high_even),
                _mm512_shuffle_f32x4::<0xdd>(low_odd, high_odd),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                _mm512_storeu_ps(to.add((4 * i + k) * to_stride), column);
            }
        }
    }
}

/// Transposes 8 by 8 floats: pairs and quads inside the 128-bit halves, then the halves.
///
/// # Safety
/// The machine has AVX2; the rest is as for [`Vector::transpose_ptr`].
#[inline(always)]
unsafe fn transpose_8(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: the caller vouches for the instructions, and for eight rows of eight elements on both sides.
    unsafe {
        let mut rows = [_mm256_setzero_ps(); 8];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = _mm256_loadu_ps(from.add(i * from_stride));
        }
        let mut pairs = rows;
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
        }
        // quads[4 * i + k] holds columns k and 4 + k of rows 4 * i to 4 * i + 3.
        let mut quads = pairs;
        for i in 0..2 {
            let [a, b, c, d] = [
                pairs[4 * i],
                pairs[4 * i + 1],
                pairs[4 * i + 2],
                pairs[4 * i + 3],
            ];
            quads[4 * i] = _mm256_shuffle_ps::<0x44>(a, c);
            quads[4 * i + 1] = _mm256_shuffle_ps::<0xee>(a, c);
            quads[4 * i + 2] = _mm256_shuffle_ps::<0x44>(b, d);
            quads[4 * i + 3] = _mm256_shuffle_ps::<0xee>(b, d);
        }
        for k in 0..4 {
            let low = _mm256_permute2f128_ps::<0x20>(quads[k], quads[4 + k]);
            let high = _mm256_permute2f128_ps::<0x31>(quads[k], quads[4 + k]);
            _mm256_storeu_ps(to.add(k * to_stride), low);
            _mm256_storeu_ps(to.add((4 + k) * to_stride), high);
        }
    }
}
