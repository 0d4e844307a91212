// Negative log-likelihood of counts under a Poisson distribution: the formulas of `poisson_nll.rs`.
#include "pointwise/pointwise.cuh"

// Stirling's approximation of ln t! where it is asked for and t is above 1.
template <class F>
static POINTWISE_INLINE F stirling(bool full, F t) {
  const double two_pi = 6.283185307179586;
  return full && t > F::of(1.0) ? t * t.ln() - t + F::of(0.5) * (F::of(two_pi) * t).ln() : F::of(0.0);
}
template <class F>
static POINTWISE_INLINE F stirling_derivative(bool full, F t) {
  return full && t > F::of(1.0) ? t.ln() + F::of(0.5) / t : F::of(0.0);
}

// The input is the logarithm of the rate.
struct OfLogRate : Formula<OfLogRate> {
  bool full;
  __device__ explicit OfLogRate(Constants constants) : full(constants.at[0] != 0.0) {}

  template <class F>
  POINTWISE_INLINE F value(F x, F t) const {
    return x.exp() - times(t, x) + stirling(full, t);
  }
  template <class F>
  POINTWISE_INLINE F derivative(F x, F t) const {
    return x.exp() - t;
  }
  template <class F>
  POINTWISE_INLINE F target_derivative(F x, F t) const {
    return stirling_derivative(full, t) - x;
  }
};
POINTWISE_KERNELS(poisson_nll, OfLogRate)

// The input is the rate.
struct OfRate : Formula<OfRate> {
  bool full;
  double eps;
  __device__ explicit OfRate(Constants constants) : full(constants.at[0] != 0.0), eps(constants.at[1]) {}

  template <class F>
  POINTWISE_INLINE F value(F x, F t) const {
    return x - times(t, (x + F::of(eps)).ln()) + stirling(full, t);
  }
  template <class F>
  POINTWISE_INLINE F derivative(F x, F t) const {
    return F::of(1.0) - times(t, F::of(1.0) / (x + F::of(eps)));
  }
  template <class F>
  POINTWISE_INLINE F target_derivative(F x, F t) const {
    return stirling_derivative(full, t) - (x + F::of(eps)).ln();
  }
};
POINTWISE_KERNELS(poisson_nll_rate, OfRate)
