// The second stage of sums over rows, the same for every loss of class indices.
#include "row_totals.cuh"

// Adds up what `count` blocks left. Grid: one block. Block: TOTALS_THREADS.
template <class A>
static __device__ __forceinline__ void add_partial(const double* partial, const uint32_t count, const Ending<A>& end) {
  Totals own = NOTHING;
  for (uint32_t i = threadIdx.x; i < count; i += TOTALS_THREADS) {
    const double* part = partial + 4 * (uint64_t)i;
    own = {own.loss + part[0], own.weight + part[1], own.correct + part[2], fmin(own.invalid, part[3])};
  }
  conclude(own, end);
}

extern "C" __global__ void __launch_bounds__(TOTALS_THREADS) row_totals_f32(const double* partial, const uint32_t count,
                                                                            const uint32_t by_weight, const double divisor,
                                                                            const double of_nothing, float* loss, double* totals) {
  add_partial<float>(partial, count, {by_weight, divisor, of_nothing, loss, totals});
}
extern "C" __global__ void __launch_bounds__(TOTALS_THREADS) row_totals_f64(const double* partial, const uint32_t count,
                                                                            const uint32_t by_weight, const double divisor,
                                                                            const double of_nothing, double* loss, double* totals) {
  add_partial<double>(partial, count, {by_weight, divisor, of_nothing, loss, totals});
}
