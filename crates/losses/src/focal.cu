// Sigmoid focal loss: the formulas of `focal.rs`.
#include "pointwise/pointwise.cuh"

struct FocalError : Formula<FocalError> {
  // NaN for none.
  double alpha, gamma;
  __device__ explicit FocalError(Constants constants) : alpha(constants.at[0]), gamma(constants.at[1]) {}

  // sigmoid(x), sigmoid(-x) and the binary cross entropy, out of one exp.
  template <class F>
  struct Parts {
    F q, not_q, bce;
    POINTWISE_INLINE Parts(F x, F t) {
      const F zero = F::of(0.0), one = F::of(1.0);
      q = x.sigmoid();
      not_q = (-x).sigmoid();
      const F tail = (-x.abs()).exp().ln_1p();
      bce = times(one - t, x.max(zero) + tail) + times(t, (-x).max(zero) + tail);
    }
    // The probability of the wrong answer.
    POINTWISE_INLINE F wrong(F t) const { return q * (F::of(1.0) - t) + not_q * t; }
  };

  template <class F>
  POINTWISE_INLINE F balance(F t) const {
    if (alpha != alpha) return F::of(1.0);
    return F::of(alpha) * t + F::of(1.0 - alpha) * (F::of(1.0) - t);
  }
  template <class F>
  POINTWISE_INLINE F power(F s) const {
    return gamma == 2.0 ? s * s : s.powf(gamma);
  }
  // d (s^gamma) / ds * m, where m is a derivative of s; it goes to 0 with m.
  template <class F>
  POINTWISE_INLINE F power_derivative(F s, F m) const {
    if (gamma == 2.0) return F::of(2.0) * s * m;
    if (gamma == 0.0) return F::of(0.0);
    return times(m, F::of(gamma) * s.powf(gamma - 1.0));
  }

  template <class F>
  POINTWISE_INLINE F value(F x, F t) const {
    const Parts<F> parts(x, t);
    return balance(t) * times(power(parts.wrong(t)), parts.bce);
  }
  template <class F>
  POINTWISE_INLINE F derivative(F x, F t) const {
    const F one = F::of(1.0);
    const Parts<F> parts(x, t);
    const F s = parts.wrong(t);
    const F bce_slope = (one - t) * parts.q - t * parts.not_q;
    const F s_slope = parts.q * parts.not_q * (one - F::of(2.0) * t);
    const F outer = power_derivative(s, s_slope);
    return balance(t) * (power(s) * bce_slope + times(outer, parts.bce));
  }
  template <class F>
  POINTWISE_INLINE F target_derivative(F x, F t) const {
    const Parts<F> parts(x, t);
    const F s = parts.wrong(t);
    const F raised = power(s);
    const F balance_slope = F::of(alpha != alpha ? 0.0 : 2.0 * alpha - 1.0);
    // softplus(-x) - softplus(x) = -x, and d s / d t = sigmoid(-x) - sigmoid(x).
    const F inner = times(raised, -x) + times(power_derivative(s, parts.not_q - parts.q), parts.bce);
    return balance(t) * inner + balance_slope * times(raised, parts.bce);
  }
};
POINTWISE_KERNELS(focal, FocalError)
