//! Dual numbers: a value and its slope, carried through a formula together.

use super::Float;
use std::cmp::Ordering;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A number and its derivative with respect to one chosen variable (forward-mode differentiation).
///
/// A formula written for any [`Float`] evaluated at `Dual::variable(x)` returns its value at x and, in
/// [`slope`](Dual::slope), its derivative there. The losses of this crate take their second derivatives this way, and
/// [`Pointwise::derivative`](super::Pointwise::derivative) its default.
///
/// ```
/// use candle_losses::{Dual, Float};
///
/// let y = Dual::variable(2.0f64).exp() * Dual::constant(3.0);
/// assert_eq!(y.slope, 3.0 * 2f64.exp());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Dual<F> {
    /// The value.
    pub value: F,
    /// The derivative of the value.
    pub slope: F,
}

impl<F: Float> Dual<F> {
    /// The variable that is differentiated by: slope 1.
    #[inline(always)]
    pub fn variable(value: F) -> Self {
        Self {
            value,
            slope: F::of(1.0),
        }
    }

    /// A number that does not depend on the variable: slope 0.
    #[inline(always)]
    pub fn constant(value: F) -> Self {
        Self {
            value,
            slope: F::of(0.0),
        }
    }

    /// A function's value, and the chain rule: its derivative times the slope.
    #[inline(always)]
    fn chain(self, value: F, derivative: F) -> Self {
        Self {
            value,
            // A constant stays a constant where the derivative is infinite: 0 * inf would be NaN.
            slope: if self.slope.is_zero() {
                self.slope
            } else {
                derivative * self.slope
            },
        }
    }
}

impl<F: PartialEq> PartialEq for Dual<F> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<F: PartialOrd> PartialOrd for Dual<F> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl<F: Float> Add for Dual<F> {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self {
            value: self.value + other.value,
            slope: self.slope + other.slope,
        }
    }
}

impl<F: Float> Sub for Dual<F> {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self {
            value: self.value - other.value,
            slope: self.slope - other.slope,
        }
    }
}

impl<F: Float> Mul for Dual<F> {
    type Output = Self;
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        let left = self.chain(self.value, other.value);
        let right = other.chain(other.value, self.value);
        Self {
            value: self.value * other.value,
            slope: left.slope + right.slope,
        }
    }
}

impl<F: Float> Div for Dual<F> {
    type Output = Self;
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        let quotient = self.value / other.value;
        let above = self.chain(quotient, F::of(1.0) / other.value);
        let below = other.chain(quotient, -quotient / other.value);
        Self {
            value: quotient,
            slope: above.slope + below.slope,
        }
    }
}

impl<F: Float> Neg for Dual<F> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Self {
            value: -self.value,
            slope: -self.slope,
        }
    }
}

impl<F: Float> Float for Dual<F> {
    #[inline(always)]
    fn of(value: f64) -> Self {
        Self::constant(F::of(value))
    }
    #[inline(always)]
    fn is_zero(self) -> bool {
        self.value.is_zero() && self.slope.is_zero()
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.chain(self.value.abs(), self.value.sign())
    }
    #[inline(always)]
    fn sign(self) -> Self {
        Self::constant(self.value.sign())
    }
    #[inline(always)]
    #[allow(clippy::eq_op)] // Only NaN is unlike itself.
    fn max(self, other: Self) -> Self {
        if self.value < other.value || other.value != other.value {
            other
        } else {
            self
        }
    }
    #[inline(always)]
    #[allow(clippy::eq_op)]
    fn min(self, other: Self) -> Self {
        if self.value > other.value || other.value != other.value {
            other
        } else {
            self
        }
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        let root = self.value.sqrt();
        self.chain(root, F::of(0.5) / root)
    }
    #[inline(always)]
    fn powf(self, exponent: f64) -> Self {
        // x^0 is 1 everywhere; the general rule gives 0 * x^-1, which is NaN at 0.
        if exponent == 0.0 {
            return Self::of(1.0);
        }
        let derivative = F::of(exponent) * self.value.powf(exponent - 1.0);
        self.chain(self.value.powf(exponent), derivative)
    }
    #[inline(always)]
    fn exp(self) -> Self {
        let e = self.value.exp();
        self.chain(e, e)
    }
    #[inline(always)]
    fn ln(self) -> Self {
        self.chain(self.value.ln(), F::of(1.0) / self.value)
    }
    #[inline(always)]
    fn ln_1p(self) -> Self {
        self.chain(self.value.ln_1p(), F::of(1.0) / (F::of(1.0) + self.value))
    }
    #[inline(always)]
    fn sin(self) -> Self {
        self.chain(self.value.sin(), self.value.cos())
    }
    #[inline(always)]
    fn cos(self) -> Self {
        self.chain(self.value.cos(), -self.value.sin())
    }
    #[inline(always)]
    fn tanh(self) -> Self {
        let t = self.value.tanh();
        self.chain(t, F::of(1.0) - t * t)
    }
    #[inline(always)]
    fn sigmoid(self) -> Self {
        let s = self.value.sigmoid();
        // 1 - s as the sigmoid of -x keeps its digits where s is near 1.
        self.chain(s, s * (-self.value).sigmoid())
    }
    #[inline(always)]
    fn softplus(self) -> Self {
        self.chain(self.value.softplus(), self.value.sigmoid())
    }
}
