// Element types: what they are computed in, how they are loaded and stored, and mathematics under one name.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

// What arithmetic and sums of an element type are done in: double for double, else float.
template <class E>
struct Element {
  using Compute = float;
};
template <>
struct Element<double> {
  using Compute = double;
};
template <class E>
using Compute = typename Element<E>::Compute;

static __device__ __forceinline__ float widen(float x) { return x; }
static __device__ __forceinline__ double widen(double x) { return x; }
static __device__ __forceinline__ float widen(__half x) { return __half2float(x); }
static __device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

// Rounds to the nearest element.
template <class E>
static __device__ __forceinline__ E narrow(Compute<E> x);
template <>
__device__ __forceinline__ float narrow<float>(float x) { return x; }
template <>
__device__ __forceinline__ double narrow<double>(double x) { return x; }
template <>
__device__ __forceinline__ __half narrow<__half>(float x) { return __float2half(x); }
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float x) { return __float2bfloat16(x); }

// Sixteen bytes: what a thread moves best at once.
template <class E>
constexpr uint32_t LANES = 16 / sizeof(E);

// How many elements lie between `address` and the next multiple of sixteen bytes.
template <class E>
static __device__ __forceinline__ uint32_t until_aligned(const E* address) {
  return (uint32_t)((16 - reinterpret_cast<uintptr_t>(address) % 16) % 16 / sizeof(E));
}

// Loads LANES<E> elements from an address that is a multiple of sixteen bytes.
template <class E>
static __device__ __forceinline__ void load_lanes(const E* address, Compute<E>* out) {
  const uint4 bits = *reinterpret_cast<const uint4*>(address);
  E lanes[LANES<E>];
  memcpy(lanes, &bits, sizeof bits);
#pragma unroll
  for (uint32_t i = 0; i < LANES<E>; i++) out[i] = widen(lanes[i]);
}

// Stores LANES<E> elements to an address that is a multiple of sixteen bytes.
template <class E>
static __device__ __forceinline__ void store_lanes(const Compute<E>* x, E* address) {
  E lanes[LANES<E>];
#pragma unroll
  for (uint32_t i = 0; i < LANES<E>; i++) lanes[i] = narrow<E>(x[i]);
  uint4 bits;
  memcpy(&bits, lanes, sizeof bits);
  *reinterpret_cast<uint4*>(address) = bits;
}

// The larger number, leaving out NaN.
static __device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }
static __device__ __forceinline__ double larger(double a, double b) { return fmax(a, b); }

// The fast exponential in f32: its relative error grows as 2 + 1.2 |x| units in the last place, so for what a softmax adds up, at most 1,
// the absolute error stays below one.
static __device__ __forceinline__ float exponential(float x) { return __expf(x); }
static __device__ __forceinline__ double exponential(double x) { return exp(x); }

static __device__ __forceinline__ float logarithm(float x) { return logf(x); }
static __device__ __forceinline__ double logarithm(double x) { return log(x); }

static __device__ __forceinline__ float hyperbolic_tangent(float x) { return tanhf(x); }
static __device__ __forceinline__ double hyperbolic_tangent(double x) { return tanh(x); }
