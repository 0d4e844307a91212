// Reductions within a warp and a block, in an order that depends on the number of threads alone.
#pragma once

#include <stdint.h>

struct Add {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const { return a + b; }
};

// Leaves out NaN.
struct Largest {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
  __device__ __forceinline__ double operator()(double a, double b) const { return fmax(a, b); }
};

struct Least {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const { return b < a ? b : a; }
};

// Of groups of `width` adjacent lanes, a power of two up to 32: every lane gets its group's result. All 32 lanes take part.
template <class T, class Op>
static __device__ __forceinline__ T warp_reduce(T value, const uint32_t width, const Op op) {
  for (uint32_t offset = width / 2; offset > 0; offset /= 2) value = op(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

// Of a block of whole warps, at most 1024 threads: every thread gets the result. All threads take part. `partial` is
// shared memory of this reduction's own; before it is used again another barrier has to pass.
template <class T, class Op>
static __device__ __forceinline__ T block_reduce(T value, T (&partial)[32], const T identity, const Op op) {
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  value = warp_reduce(value, 32, op);
  if (lane == 0) partial[warp] = value;
  __syncthreads();
  return warp_reduce(lane < warps ? partial[lane] : identity, 32, op);
}
