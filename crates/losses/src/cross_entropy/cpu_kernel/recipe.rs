//! The options as numbers of the compute type, and the formulas of one row.

use candle_simd::{Float, Vector};

use super::IGNORED;

/// The options of a call, in the type that the kernel computes in.
#[derive(Clone, Copy, Debug)]
pub(in crate::cross_entropy) struct Recipe<'a, F> {
    pub(in crate::cross_entropy) classes: usize,
    pub(in crate::cross_entropy) scale: F,
    pub(in crate::cross_entropy) cap: Option<F>,
    pub(in crate::cross_entropy) z_loss: F,
    /// 1 - e.
    pub(in crate::cross_entropy) hard: F,
    /// e/C.
    pub(in crate::cross_entropy) uniform: F,
    pub(in crate::cross_entropy) weights: Option<&'a [F]>,
    pub(in crate::cross_entropy) probabilities: bool,
}

/// What the row's position in the batch gives it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowUpstream<F> {
    pub(super) loss: F,
    pub(super) lse: F,
    pub(super) target_log_prob: F,
}

impl<F: Float> RowUpstream<F> {
    pub(super) const ZERO: Self = Self {
        loss: F::ZERO,
        lse: F::ZERO,
        target_log_prob: F::ZERO,
    };
}

/// What a row has to give.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowValue<F> {
    pub(super) loss: F,
    pub(super) sum: F,
    pub(super) lse: F,
    pub(super) target_log_prob: F,
    pub(super) argmax: u32,
}

impl<F: Float> RowValue<F> {
    /// Of a row that is not read.
    pub(super) const UNREAD: Self = Self {
        loss: F::ZERO,
        sum: F::ONE,
        lse: F::ZERO,
        target_log_prob: F::ZERO,
        argmax: 0,
    };
}

/// What the passes over a row found.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowSums<F> {
    /// max x'.
    pub(super) max: F,
    /// sum exp(x' - max).
    pub(super) sum: F,
    /// log of it.
    pub(super) log_sum: F,
    /// The sum of the coefficients that all classes have (smoothing, probabilities).
    pub(super) dense: F,
    /// The sum of the same coefficients times (x' - max).
    pub(super) dense_shifted: F,
    /// x' of the target's class.
    pub(super) target: F,
}

/// The gradient of a row: `(scaled * exp(x' - max) - loss * dense coefficient - at_target * 1[c = y]) * dx'/dx`.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowGradient<F> {
    pub(super) scaled: F,
    pub(super) loss: F,
    pub(super) at_target: F,
}

impl<F: Float> Recipe<'_, F> {
    /// Whether the logits enter as they are and only the target's class has a coefficient.
    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        self.cap.is_none() && self.scale == F::ONE && !self.is_dense()
    }

    /// Whether classes other than the target's have coefficients.
    #[inline(always)]
    pub(super) fn is_dense(&self) -> bool {
        self.probabilities || self.uniform != F::ZERO
    }

    /// The coefficient of the target's class alone, (1 - e) w_y; 0 where there is none.
    #[inline(always)]
    pub(super) fn hard_coefficient(&self, target: i64) -> F {
        if self.probabilities || target == IGNORED {
            return F::ZERO;
        }
        match self.weights {
            None => self.hard,
            Some(weights) => self.hard * weights[target as usize],
        }
    }

    /// The loss and what else a row that is read gives.
    #[inline(always)]
    pub(super) fn value(&self, target: i64, sums: &RowSums<F>, argmax: u32) -> RowValue<F> {
        let lse = sums.max + sums.log_sum;
        if target == IGNORED {
            return RowValue {
                lse,
                argmax,
                sum: sums.sum,
                ..RowValue::UNREAD
            };
        }
        // Not lse - x: the difference to the maximum is exact where the logits are large.
        let negative_log_prob = sums.log_sum - (sums.target - sums.max);
        let hard = self.hard_coefficient(target);
        let mut loss = F::ZERO;
        // A coefficient of 0 contributes 0, also where x' is -inf; a row that is NaN stays NaN.
        if hard != F::ZERO || sums.sum.is_nan() {
            loss = loss + hard * negative_log_prob;
        }
        if self.is_dense() {
            loss = loss + (sums.dense * sums.log_sum - sums.dense_shifted);
        }
        if self.z_loss != F::ZERO {
            loss = loss + self.z_loss * lse * lse;
        }
        RowValue {
            loss,
            sum: sums.sum,
            lse,
            target_log_prob: -negative_log_prob,
            argmax,
        }
    }

    /// The factors of the gradient of a row that is read.
    #[inline(always)]
    pub(super) fn gradient(
        &self,
        target: i64,
        sums: &RowSums<F>,
        upstream: &RowUpstream<F>,
    ) -> RowGradient<F> {
        let hard = self.hard_coefficient(target);
        let lse = sums.max + sums.log_sum;
        let two = F::ONE + F::ONE;
        let mut of_loss = hard;
        if self.is_dense() {
            of_loss = of_loss + sums.dense;
        }
        if self.z_loss != F::ZERO {
            of_loss = of_loss + two * self.z_loss * lse;
        }
        let of_probability = upstream.loss * of_loss + upstream.lse - upstream.target_log_prob;
        RowGradient {
            scaled: of_probability / sums.sum,
            loss: upstream.loss,
            at_target: upstream.loss * hard - upstream.target_log_prob,
        }
    }
}

/// x' = s tanh(a x / s).
#[inline(always)]
pub(super) fn transform<V: Vector>(recipe: &Recipe<'_, V::Elem>, x: V) -> V {
    let s = x.token();
    let x = x * V::splat(s, recipe.scale);
    match recipe.cap {
        None => x,
        Some(cap) => (x / V::splat(s, cap)).tanh() * V::splat(s, cap),
    }
}

/// dx'/dx as a function of x'.
#[inline(always)]
pub(super) fn slope<V: Vector>(recipe: &Recipe<'_, V::Elem>, transformed: V) -> V {
    let s = transformed.token();
    let scale = V::splat(s, recipe.scale);
    match recipe.cap {
        None => scale,
        Some(cap) => {
            let t = transformed / V::splat(s, cap);
            scale * t.neg_mul_add(t, V::splat(s, V::Elem::ONE))
        }
    }
}
