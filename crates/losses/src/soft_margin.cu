// Soft margin loss: the formulas of `soft_margin.rs`.
#include "pointwise/pointwise.cuh"

struct Margin : Formula<Margin> {
  template <class F>
  POINTWISE_INLINE F value(F x, F t) const {
    return (-t * x).softplus();
  }
  template <class F>
  POINTWISE_INLINE F derivative(F x, F t) const {
    return -t * (-t * x).sigmoid();
  }
  template <class F>
  POINTWISE_INLINE F target_derivative(F x, F t) const {
    return -x * (-t * x).sigmoid();
  }
};
POINTWISE_KERNELS(soft_margin, Margin)
