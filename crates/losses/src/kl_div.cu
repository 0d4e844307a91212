// Kullback-Leibler divergence of log-probabilities: the formulas of `kl_div.rs`.
#include "pointwise/pointwise.cuh"

// Targets are probabilities.
struct Divergence : Formula<Divergence> {
  template <class F>
  POINTWISE_INLINE F value(F x, F t) const {
    return times(t, t.ln() - x);
  }
  template <class F>
  POINTWISE_INLINE F derivative(F, F t) const {
    return -t;
  }
  template <class F>
  POINTWISE_INLINE F target_derivative(F x, F t) const {
    return t.ln() - x + F::of(1.0);
  }
};
POINTWISE_KERNELS(kl_div, Divergence)

// Targets are log-probabilities.
struct LogDivergence : Formula<LogDivergence> {
  template <class F>
  POINTWISE_INLINE F value(F x, F t) const {
    return times(t.exp(), t - x);
  }
  template <class F>
  POINTWISE_INLINE F derivative(F, F t) const {
    return -t.exp();
  }
  template <class F>
  POINTWISE_INLINE F target_derivative(F x, F t) const {
    return times(t.exp(), t - x + F::of(1.0));
  }
};
POINTWISE_KERNELS(kl_div_log, LogDivergence)
