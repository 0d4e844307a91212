// What all kernels of this crate share: element types with the type they are computed in, and the split of an index.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

// f16 and bf16 are computed in f32 and rounded once.
template <class T>
struct Computed {
  using type = float;
};
template <>
struct Computed<double> {
  using type = double;
};
template <class T>
using Compute = typename Computed<T>::type;

static __device__ __forceinline__ float widen(float x) { return x; }
static __device__ __forceinline__ double widen(double x) { return x; }
static __device__ __forceinline__ float widen(__half x) { return __half2float(x); }
static __device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

static __device__ __forceinline__ void narrow(float from, float& to) { to = from; }
static __device__ __forceinline__ void narrow(double from, double& to) { to = from; }
static __device__ __forceinline__ void narrow(float from, __half& to) { to = __float2half_rn(from); }
static __device__ __forceinline__ void narrow(float from, __nv_bfloat16& to) { to = __float2bfloat16_rn(from); }

// The index of this thread in a grid along x.
static __device__ __forceinline__ uint64_t thread_index() { return (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; }

// Splits off the last coordinate: returns `index % size` and leaves `index / size`. A division in 32 bits is several times
// faster, and almost every index fits.
static __device__ __forceinline__ uint32_t split(uint64_t& index, uint32_t size) {
  if (index <= 0xffffffffu) {
    const uint32_t small = (uint32_t)index, quotient = small / size;
    index = quotient;
    return small - quotient * size;
  }
  const uint64_t quotient = index / size;
  const uint32_t remainder = (uint32_t)(index - quotient * size);
  index = quotient;
  return remainder;
}

// Expands to one definition for each element type.
#define FOR_EACH_ELEMENT(DEFINE) \
  DEFINE(float, f32)             \
  DEFINE(double, f64)            \
  DEFINE(__half, f16)            \
  DEFINE(__nv_bfloat16, bf16)
