//! The vector vocabulary: [`Simd`] (an instruction set), [`Vector`] (its lanes of one float type) and [`Float`] (the type).
//!
//! The three implementations agree to the bit on everything except fused multiply-add (rounded twice on the portable
//! set unless the target guarantees FMA) and the order of [`Vector::reduce_add`], which depends on the lane count.

use std::fmt::Debug;
use std::ops::{Add, BitAnd, BitOr, Div, Mul, Neg, Not, Sub};

use half::{bf16, f16};

/// The most lanes that any [`Vector`] has.
pub const MAX_LANES: usize = 16;

/// A number for each lane, for [`Vector::pick`]; on a cache line, so that it is loaded at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
pub struct LaneNumbers(pub [u32; MAX_LANES]);

/// Proof that the machine has an instruction set, and the vector types that go with it.
///
/// Tokens come from [`crate::Isa::dispatch`] only.
pub trait Simd: Copy + Debug + Send + Sync + 'static {
    /// Lanes of `f32`.
    type F32: Vector<Elem = f32, Token = Self>;
    /// Lanes of `f64`.
    type F64: Vector<Elem = f64, Token = Self>;

    /// The instruction set that the token stands for.
    const ISA: crate::Isa;

    /// Widens as many `f16` as there are `f32` lanes. Exact; NaN stays NaN.
    ///
    /// # Safety
    /// `p` is valid for reading that many elements.
    unsafe fn load_f16(self, p: *const f16) -> Self::F32;

    /// Rounds each lane to the nearest `f16`, ties to even, as `f16::from_f32` does.
    ///
    /// # Safety
    /// `p` is valid for writing as many elements as there are `f32` lanes.
    unsafe fn store_f16(self, v: Self::F32, p: *mut f16);

    /// Widens as many `bf16` as there are `f32` lanes. Exact; NaN stays NaN.
    ///
    /// # Safety
    /// `p` is valid for reading that many elements.
    unsafe fn load_bf16(self, p: *const bf16) -> Self::F32;

    /// Rounds each lane to the nearest `bf16`, ties to even, as `bf16::from_f32` does.
    ///
    /// # Safety
    /// `p` is valid for writing as many elements as there are `f32` lanes.
    unsafe fn store_bf16(self, v: Self::F32, p: *mut bf16);
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// `f32` or `f64`: a type that kernels compute in.
pub trait Float:
    sealed::Sealed
    + Copy
    + Debug
    + Default
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The vector of this type in an instruction set.
    type V<S: Simd>: Vector<Elem = Self, Token = S>;

    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Not a number.
    const NAN: Self;
    /// Positive infinity.
    const INFINITY: Self;
    /// Negative infinity.
    const NEG_INFINITY: Self;

    /// The nearest value of this type.
    fn from_f64(x: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// Natural exponential, from the standard library.
    fn exp(self) -> Self;
    /// Natural logarithm, from the standard library.
    fn ln(self) -> Self;
    /// Whether this is not a number.
    fn is_nan(self) -> bool;
}

macro_rules! float {
    ($t:ident, $v:ident) => {
        impl Float for $t {
            type V<S: Simd> = S::$v;
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NAN: Self = Self::NAN;
            const INFINITY: Self = Self::INFINITY;
            const NEG_INFINITY: Self = Self::NEG_INFINITY;
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn exp(self) -> Self {
                self.exp()
            }
            #[inline(always)]
            fn ln(self) -> Self {
                self.ln()
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                self.is_nan()
            }
        }
    };
}
float!(f32, F32);
float!(f64, F64);

/// A register of [`Self::LANES`] floats.
///
/// Constructors take the token, so that a vector exists only where its instructions do.
pub trait Vector:
    Copy
    + Debug
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The type of a lane.
    type Elem: Float;
    /// The instruction set.
    type Token: Simd;
    /// One truth value a lane.
    type Mask: Copy
        + Debug
        + BitAnd<Output = Self::Mask>
        + BitOr<Output = Self::Mask>
        + Not<Output = Self::Mask>;

    /// Lanes in a vector, a power of two, at most [`MAX_LANES`].
    const LANES: usize;

    /// The token that the vector was made with.
    fn token(self) -> Self::Token;

    /// Every lane `x`.
    fn splat(s: Self::Token, x: Self::Elem) -> Self;

    /// The first [`Self::LANES`] elements of `data`. Panics where it is shorter.
    #[inline(always)]
    fn load(s: Self::Token, data: &[Self::Elem]) -> Self {
        assert!(data.len() >= Self::LANES);
        // SAFETY: the slice holds LANES elements.
        unsafe { Self::load_ptr(s, data.as_ptr()) }
    }

    /// The whole of `data` in the first lanes and `fill` in the others. Panics where it is longer than a vector.
    #[inline(always)]
    fn load_partial(s: Self::Token, data: &[Self::Elem], fill: Self::Elem) -> Self {
        assert!(data.len() <= Self::LANES);
        // SAFETY: the slice holds the elements that are read.
        unsafe { Self::load_partial_ptr(s, data.as_ptr(), data.len(), fill) }
    }

    /// Writes the lanes to the first [`Self::LANES`] elements of `out`. Panics where it is shorter.
    #[inline(always)]
    fn store(self, out: &mut [Self::Elem]) {
        assert!(out.len() >= Self::LANES);
        // SAFETY: the slice holds LANES elements.
        unsafe { self.store_ptr(out.as_mut_ptr()) }
    }

    /// Writes the first lanes to the whole of `out`. Panics where it is longer than a vector.
    #[inline(always)]
    fn store_partial(self, out: &mut [Self::Elem]) {
        assert!(out.len() <= Self::LANES);
        // SAFETY: the slice holds the elements that are written.
        unsafe { self.store_partial_ptr(out.as_mut_ptr(), out.len()) }
    }

    /// Reads [`Self::LANES`] elements at any alignment.
    ///
    /// # Safety
    /// `p` is valid for reading them.
    unsafe fn load_ptr(s: Self::Token, p: *const Self::Elem) -> Self;

    /// Reads `n` elements, 0 to [`Self::LANES`], and puts `fill` into the other lanes.
    ///
    /// # Safety
    /// `n` is at most [`Self::LANES`] and `p` is valid for reading `n` elements; no other is touched.
    unsafe fn load_partial_ptr(
        s: Self::Token,
        p: *const Self::Elem,
        n: usize,
        fill: Self::Elem,
    ) -> Self;

    /// Writes [`Self::LANES`] elements at any alignment.
    ///
    /// # Safety
    /// `p` is valid for writing them.
    unsafe fn store_ptr(self, p: *mut Self::Elem);

    /// Writes the first `n` lanes, 0 to [`Self::LANES`].
    ///
    /// # Safety
    /// `n` is at most [`Self::LANES`] and `p` is valid for writing `n` elements; no other is touched.
    unsafe fn store_partial_ptr(self, p: *mut Self::Elem, n: usize);

    /// `self * a + b`, rounded once where the instruction set has FMA.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// `b - self * a`, rounded once where the instruction set has FMA.
    fn neg_mul_add(self, a: Self, b: Self) -> Self;
    /// The larger of the two; `other` where either is NaN.
    fn max(self, other: Self) -> Self;
    /// The smaller of the two; `other` where either is NaN.
    fn min(self, other: Self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// Square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// The magnitude of `self` with the sign of `sign`.
    fn copysign(self, sign: Self) -> Self;
    /// Nearest integer, ties to even. The sign of a zero result is not specified.
    fn round(self) -> Self;
    /// `self * 2^n` for integral `n` within ±250 (`f32`) or ±2000 (`f64`), with gradual underflow and overflow to
    /// infinity; rounded once for a magnitude of `self` within [0.5, 2]. NaN stays NaN, whatever `n` is.
    fn scale2(self, n: Self) -> Self;
    /// `(m, e)` with `self = m * 2^e`, m in `[0.75, 1.5)` and e integral, for positive finite normal `self`; otherwise
    /// not specified.
    fn split2(self) -> (Self, Self);

    /// `self < other`, false for NaN.
    fn lt(self, other: Self) -> Self::Mask;
    /// `self <= other`, false for NaN.
    fn le(self, other: Self) -> Self::Mask;
    /// `self == other`, false for NaN.
    fn eq(self, other: Self) -> Self::Mask;
    /// `self > other`, false for NaN.
    #[inline(always)]
    fn gt(self, other: Self) -> Self::Mask {
        other.lt(self)
    }
    /// `self >= other`, false for NaN.
    #[inline(always)]
    fn ge(self, other: Self) -> Self::Mask {
        other.le(self)
    }
    /// Lanes that are NaN.
    #[inline(always)]
    fn is_nan(self) -> Self::Mask {
        !self.eq(self)
    }
    /// The mask that holds in the first `n` lanes, 0 to [`Self::LANES`].
    fn first(s: Self::Token, n: usize) -> Self::Mask;
    /// `self` where the mask holds, else `other`.
    fn select(self, mask: Self::Mask, other: Self) -> Self;
    /// Bit i says whether the mask holds in lane i.
    fn mask_bits(mask: Self::Mask) -> u32;

    /// Writes the lanes where the mask holds to `p`, one behind the other, and returns how many they are. What the rest
    /// of the [`Self::LANES`] elements then holds is not specified.
    ///
    /// # Safety
    /// `p` is valid for writing [`Self::LANES`] elements.
    #[inline(always)]
    unsafe fn compress_ptr(self, mask: Self::Mask, p: *mut Self::Elem) -> usize {
        let (lanes, bits) = (self.to_array(), Self::mask_bits(mask));
        let mut count = 0;
        for (lane, &x) in lanes[..Self::LANES].iter().enumerate() {
            // SAFETY: count is at most lane, which is below LANES.
            unsafe { *p.add(count) = x };
            count += (bits >> lane & 1) as usize;
        }
        count
    }

    /// Writes the lanes where the mask holds, which are integers from 0 to 2^24, to `p` as `u32`, one behind the other. What
    /// the rest of the [`Self::LANES`] elements then holds is not specified.
    ///
    /// # Safety
    /// `p` is valid for writing [`Self::LANES`] elements.
    #[inline(always)]
    unsafe fn compress_u32_ptr(self, mask: Self::Mask, p: *mut u32) {
        let (lanes, bits) = (self.to_array(), Self::mask_bits(mask));
        let mut count = 0;
        for (lane, x) in lanes[..Self::LANES].iter().enumerate() {
            // SAFETY: count is at most lane, which is below LANES.
            unsafe { *p.add(count) = x.to_f64() as u32 };
            count += (bits >> lane & 1) as usize;
        }
    }

    /// Where [`Self::LANES`] bytes have a bit of `bits`.
    ///
    /// # Safety
    /// `p` is valid for reading them.
    #[inline(always)]
    unsafe fn have_bits_u8_ptr(s: Self::Token, p: *const u8, bits: u8) -> Self::Mask {
        let mut found = [Self::Elem::ZERO; MAX_LANES];
        for (lane, x) in found[..Self::LANES].iter_mut().enumerate() {
            // SAFETY: lane is below LANES.
            *x = Self::Elem::from_f64(f64::from(unsafe { *p.add(lane) } & bits));
        }
        Self::load(s, &found).gt(Self::splat(s, Self::Elem::ZERO))
    }

    /// Widens [`Self::LANES`] bytes.
    ///
    /// # Safety
    /// `p` is valid for reading them.
    #[inline(always)]
    unsafe fn load_u8_ptr(s: Self::Token, p: *const u8) -> Self {
        let mut wide = [Self::Elem::ZERO; MAX_LANES];
        for (lane, x) in wide[..Self::LANES].iter_mut().enumerate() {
            // SAFETY: lane is below LANES.
            *x = Self::Elem::from_f64(f64::from(unsafe { *p.add(lane) }));
        }
        Self::load(s, &wide)
    }

    /// Writes the lanes, which are integers from 0 to 255, as bytes.
    ///
    /// # Safety
    /// `p` is valid for writing [`Self::LANES`] bytes.
    #[inline(always)]
    unsafe fn store_u8_ptr(self, p: *mut u8) {
        for (lane, x) in self.to_array()[..Self::LANES].iter().enumerate() {
            // SAFETY: lane is below LANES.
            unsafe { *p.add(lane) = x.to_f64() as u8 };
        }
    }

    /// Transposes a block of [`Self::LANES`] by [`Self::LANES`] elements: `to[j * to_stride + i] = from[i * from_stride + j]`.
    ///
    /// # Safety
    /// `from` is valid for reading [`Self::LANES`] rows `from_stride` apart, `to` for writing as many `to_stride` apart,
    /// and the two do not overlap.
    #[inline(always)]
    unsafe fn transpose_ptr(
        _: Self::Token,
        from: *const Self::Elem,
        from_stride: usize,
        to: *mut Self::Elem,
        to_stride: usize,
    ) {
        for j in 0..Self::LANES {
            for i in 0..Self::LANES {
                // SAFETY: i and j are below LANES.
                unsafe { *to.add(j * to_stride + i) = *from.add(i * from_stride + j) };
            }
        }
    }

    /// The even and the odd lanes of `self` followed by `next`.
    #[inline(always)]
    fn unzip(self, next: Self) -> (Self, Self) {
        let (s, halves) = (self.token(), [self.to_array(), next.to_array()]);
        let (mut even, mut odd) = ([Self::Elem::ZERO; MAX_LANES], [Self::Elem::ZERO; MAX_LANES]);
        for lane in 0..Self::LANES {
            let half = &halves[2 * lane / Self::LANES];
            even[lane] = half[2 * lane % Self::LANES];
            odd[lane] = half[2 * lane % Self::LANES + 1];
        }
        (Self::load(s, &even), Self::load(s, &odd))
    }

    /// Lane i is lane `from[i]` of `self` followed by `next`. `from` holds [`Self::LANES`] numbers below twice as many.
    #[inline(always)]
    fn pick(self, next: Self, from: &LaneNumbers) -> Self {
        let (s, halves) = (self.token(), [self.to_array(), next.to_array()]);
        let mut picked = [Self::Elem::ZERO; MAX_LANES];
        for (lane, &from) in picked[..Self::LANES].iter_mut().zip(&from.0) {
            let from = from as usize % (2 * Self::LANES);
            *lane = halves[from / Self::LANES][from % Self::LANES];
        }
        Self::load(s, &picked)
    }

    /// The sum of the lanes, as a tree: lane i and lane i + LANES/2 first, halving until one is left.
    fn reduce_add(self) -> Self::Elem;
    /// The largest lane; the result is not specified where a lane is NaN.
    fn reduce_max(self) -> Self::Elem;
    /// The smallest lane; the result is not specified where a lane is NaN.
    fn reduce_min(self) -> Self::Elem;

    /// Natural exponential. At most 2 ulp from the exact value over the whole range, results below the normal range
    /// included; exact at 0, 0 at -inf, inf at +inf and above the range, NaN for NaN.
    fn exp(self) -> Self;

    /// Natural exponential of numbers up to 0 and little above, as softmax takes it, in fewer instructions than [`Self::exp`]. For `f32` the
    /// relative error is at most `(2 + |x|) * 2^-23`, which is less than half a unit of 1 for the terms of a sum, and results
    /// below the normal range keep that absolute accuracy only; `f64` is as accurate as `exp`. Exact at 0, 0 at -inf,
    /// NaN for NaN, not specified above 80.
    fn exp_nonpositive(self) -> Self;

    /// As [`Self::exp_nonpositive`], for arguments that were rounded to a half type: the relative error of `f32` is at most
    /// `2^-18 + |x| * 2^-23`, below a hundredth of what rounding the argument to `f16` may have changed.
    #[inline(always)]
    fn exp_nonpositive_for_half(self) -> Self {
        self.exp_nonpositive()
    }

    /// Natural logarithm. At most 2 ulp from the exact value for positive numbers, denormals included; exact at 1, -inf at
    /// 0 and -0, +inf at +inf, NaN for NaN and below 0.
    fn ln(self) -> Self;

    /// Hyperbolic tangent. At most 4 ulp from the exact value; odd, ±1 at ±inf, NaN for NaN.
    fn tanh(self) -> Self;

    /// The lanes, the first [`Self::LANES`] of the array; the others are 0.
    #[inline(always)]
    fn to_array(self) -> [Self::Elem; MAX_LANES] {
        let mut out = [Self::Elem::ZERO; MAX_LANES];
        self.store(&mut out);
        out
    }
}
