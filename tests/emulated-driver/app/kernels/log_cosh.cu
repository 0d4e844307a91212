// A loss of another crate's own, as the documentation of `candle_losses::pointwise::CudaKernels` tells how.
#include "pointwise/pointwise.cuh"

// s ln cosh((x - t) / s)
struct LogCosh : Formula<LogCosh> {
  double s;
  __device__ explicit LogCosh(Constants constants) : s(constants.at[0]) {}

  template <class F>
  POINTWISE_INLINE F value(F x, F t) const {
    const F d = ((x - t) / F::of(s)).abs();
    return F::of(s) * (d + (F::of(-2.0) * d).exp().ln_1p() - F::of(0.6931471805599453));
  }
};
POINTWISE_KERNELS(log_cosh, LogCosh)
