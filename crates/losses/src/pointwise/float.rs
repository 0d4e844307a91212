//! The scalar arithmetic that a pointwise loss is written in, for `f32`, `f64` and [`Dual`](super::Dual) numbers.

use super::math;
use std::fmt::Debug;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A real number: what the formulas of a [`Pointwise`](super::Pointwise) loss are written in.
///
/// One formula serves three kinds of number: `f32` (also for f16 and bf16 tensors), `f64`, and
/// [`Dual`](super::Dual), which carries a derivative along. Constants come in through [`Float::of`].
///
/// Comparisons are those of the values, so `if` works as usual and a derivative follows the branch that was taken.
///
/// ```
/// use candle_losses::Float;
///
/// fn log_cosh<F: Float>(x: F) -> F {
///     let a = x.abs();
///     a + (F::of(-2.0) * a).exp().ln_1p() - F::of(std::f64::consts::LN_2)
/// }
/// assert!((log_cosh(1.5f64) - 1.5f64.cosh().ln()).abs() < 1e-15);
/// assert!(log_cosh(1e4f32).is_finite());
/// ```
pub trait Float:
    Copy
    + Debug
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
    /// The constant `value`, rounded to this type.
    fn of(value: f64) -> Self;
    /// Whether this is 0; for a dual number, 0 with slope 0.
    #[inline(always)]
    fn is_zero(self) -> bool {
        self == Self::of(0.0)
    }
    /// Absolute value; its derivative at 0 is 0.
    fn abs(self) -> Self;
    /// -1, 0 or 1: unlike the standard library's `signum`, 0 at 0. NaN stays NaN.
    fn sign(self) -> Self;
    /// The larger of two; NaN if either is NaN.
    fn max(self, other: Self) -> Self;
    /// The smaller of two; NaN if either is NaN.
    fn min(self, other: Self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// `self` to a constant power.
    fn powf(self, exponent: f64) -> Self;
    /// e to the power of `self`.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// `ln(1 + self)`, exact also where `self` is tiny.
    fn ln_1p(self) -> Self;
    /// Sine.
    fn sin(self) -> Self;
    /// Cosine.
    fn cos(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;

    /// `1 / (1 + exp(-self))`, without overflow at either end.
    #[inline(always)]
    fn sigmoid(self) -> Self {
        // exp of a number that is never positive cannot overflow.
        let e = (-self.abs()).exp();
        let small = e / (Self::of(1.0) + e);
        if self < Self::of(0.0) {
            small
        } else {
            Self::of(1.0) / (Self::of(1.0) + e)
        }
    }

    /// `ln(1 + exp(self))`, without overflow, exact to the last bits at either end.
    #[inline(always)]
    fn softplus(self) -> Self {
        self.max(Self::of(0.0)) + (-self.abs()).exp().ln_1p()
    }
}

macro_rules! float {
    ($t:ty, $exp:path, $ln:path, $ln_1p:path) => {
        impl Float for $t {
            #[inline(always)]
            fn of(value: f64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn abs(self) -> Self {
                <$t>::abs(self)
            }
            #[inline(always)]
            fn sign(self) -> Self {
                // Two selects, so that the loop around it becomes vector code.
                let positive = if self > 0.0 { 1.0 } else { self };
                if self < 0.0 { -1.0 } else { positive }
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                if (self < other) | other.is_nan() {
                    other
                } else {
                    self
                }
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                if (self > other) | other.is_nan() {
                    other
                } else {
                    self
                }
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            #[inline(always)]
            fn powf(self, exponent: f64) -> Self {
                <$t>::powf(self, exponent as $t)
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }
            #[inline(always)]
            fn ln(self) -> Self {
                $ln(self)
            }
            #[inline(always)]
            fn ln_1p(self) -> Self {
                $ln_1p(self)
            }
            #[inline(always)]
            fn sin(self) -> Self {
                <$t>::sin(self)
            }
            #[inline(always)]
            fn cos(self) -> Self {
                <$t>::cos(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                <$t>::tanh(self)
            }
        }
    };
}

// f64 is for exactness, so it keeps the standard library's functions.
float!(f32, math::exp, math::ln, math::ln_1p);
float!(f64, f64::exp, f64::ln, f64::ln_1p);
