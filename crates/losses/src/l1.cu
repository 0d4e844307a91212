// Absolute error: the formulas of `l1.rs`.
#include "pointwise/pointwise.cuh"

struct AbsoluteError : Formula<AbsoluteError> {
  template <class F>
  POINTWISE_INLINE F value(F x, F t) const {
    return (x - t).abs();
  }
  template <class F>
  POINTWISE_INLINE F derivative(F x, F t) const {
    return (x - t).sign();
  }
  template <class F>
  POINTWISE_INLINE F target_derivative(F x, F t) const {
    return (t - x).sign();
  }
};
POINTWISE_KERNELS(l1, AbsoluteError)
