// Huber loss: the formulas of `huber.rs`.
#include "pointwise/pointwise.cuh"

struct HuberError : Formula<HuberError> {
  double delta;
  __device__ explicit HuberError(Constants constants) : delta(constants.at[0]) {}

  template <class F>
  POINTWISE_INLINE F value(F x, F t) const {
    const F a = (x - t).abs(), d = F::of(delta);
    return a <= d ? F::of(0.5) * a * a : d * (a - F::of(0.5) * d);
  }
  template <class F>
  POINTWISE_INLINE F derivative(F x, F t) const {
    return (x - t).max(F::of(-delta)).min(F::of(delta));
  }
  template <class F>
  POINTWISE_INLINE F target_derivative(F x, F t) const {
    return derivative(t, x);
  }
};
POINTWISE_KERNELS(huber, HuberError)
