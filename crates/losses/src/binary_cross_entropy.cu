// Binary cross entropy of logits: the formulas of `binary_cross_entropy.rs`. The parameter p is the weight of the positive term.
#include "pointwise/pointwise.cuh"

struct LogitsError : Formula<LogitsError> {
  template <class F>
  POINTWISE_INLINE F value(F x, F z, F p) const {
    const F zero = F::of(0.0);
    // The part that softplus(x) and softplus(-x) share.
    const F tail = (-x.abs()).exp().ln_1p();
    return times(F::of(1.0) - z, x.max(zero) + tail) + times(p * z, (-x).max(zero) + tail);
  }
  template <class F>
  POINTWISE_INLINE F derivative(F x, F z, F p) const {
    // Both sigmoids out of one exp, each with all its digits.
    const F e = (-x.abs()).exp();
    const F near_one = F::of(1.0) / (F::of(1.0) + e);
    const F near_zero = e * near_one;
    const bool negative = x < F::of(0.0);
    const F up = negative ? near_zero : near_one, down = negative ? near_one : near_zero;
    return (F::of(1.0) - z) * up - p * z * down;
  }
  template <class F>
  POINTWISE_INLINE F target_derivative(F x, F, F p) const {
    const F zero = F::of(0.0);
    const F tail = (-x.abs()).exp().ln_1p();
    return times(p, (-x).max(zero)) - x.max(zero) + (p - F::of(1.0)) * tail;
  }
};
POINTWISE_KERNELS(binary_cross_entropy, LogitsError)
