// Mean squared error: the formulas of `mse.rs`.
#include "pointwise/pointwise.cuh"

struct SquaredError : Formula<SquaredError> {
  template <class F>
  POINTWISE_INLINE F value(F x, F t) const {
    const F d = x - t;
    return d * d;
  }
  template <class F>
  POINTWISE_INLINE F derivative(F x, F t) const {
    return F::of(2.0) * (x - t);
  }
  template <class F>
  POINTWISE_INLINE F target_derivative(F x, F t) const {
    return F::of(2.0) * (t - x);
  }
};
POINTWISE_KERNELS(mse, SquaredError)
