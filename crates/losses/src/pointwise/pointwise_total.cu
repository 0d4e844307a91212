// The second stage of a pointwise loss's sum, the same for all of them.
#include "pointwise.cuh"

// Adds the parts, divides, and rounds once. Grid: one block. Block: 256 threads.
template <class R>
static POINTWISE_INLINE void total(const double* parts, R* loss, uint32_t count, double divisor) {
  double sum = 0;
  for (uint32_t part = threadIdx.x; part < count; part += blockDim.x) sum += parts[part];
  sum = block_total(sum);
  if (threadIdx.x == 0) *loss = (R)(sum / divisor);
}

extern "C" __global__ void __launch_bounds__(256) pointwise_total_f32(const double* parts, float* loss, const uint32_t count,
                                                                      const double divisor) {
  total(parts, loss, count, divisor);
}
extern "C" __global__ void __launch_bounds__(256) pointwise_total_f64(const double* parts, double* loss, const uint32_t count,
                                                                      const double divisor) {
  total(parts, loss, count, divisor);
}
