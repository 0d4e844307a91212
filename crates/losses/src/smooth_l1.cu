// Smooth L1 loss for beta above 0: the formulas of `smooth_l1.rs`.
#include "pointwise/pointwise.cuh"

struct SmoothError : Formula<SmoothError> {
  double beta;
  __device__ explicit SmoothError(Constants constants) : beta(constants.at[0]) {}

  template <class F>
  POINTWISE_INLINE F value(F x, F t) const {
    const F a = (x - t).abs(), b = F::of(beta);
    return a < b ? F::of(0.5) * a * a / b : a - F::of(0.5) * b;
  }
  template <class F>
  POINTWISE_INLINE F derivative(F x, F t) const {
    return ((x - t) / F::of(beta)).max(F::of(-1.0)).min(F::of(1.0));
  }
  template <class F>
  POINTWISE_INLINE F target_derivative(F x, F t) const {
    return derivative(t, x);
  }
};
POINTWISE_KERNELS(smooth_l1, SmoothError)
