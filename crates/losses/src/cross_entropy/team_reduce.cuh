// Reductions of teams of threads in a block, in an order that depends on the size of the team alone.
#pragma once

#include <stdint.h>

// Of teams of `size` threads, a power of two, `step` threads apart; `rank` counts within the team. Every thread gets its team's
// result. All threads of the block take part. `shared`, one element a
// thread, is shared memory of this reduction's own; before it is used again another barrier has to pass.
template <class T, class Op>
static __device__ __forceinline__ T team_reduce(T value, T* shared, const uint32_t size, const uint32_t rank, const uint32_t step,
                                                const Op op) {
  if (size == 1) return value;
  shared[threadIdx.x] = value;
  for (uint32_t half = size / 2; half > 0; half /= 2) {
    __syncthreads();
    if (rank < half) shared[threadIdx.x] = op(shared[threadIdx.x], shared[threadIdx.x + half * step]);
  }
  __syncthreads();
  return shared[threadIdx.x - rank * step];
}
