// Half-precision functions that NVIDIA's headers define for the device alone.
//
// The headers give conversions, operators and comparisons on the host too. What is missing is computed in f32 and
// rounded once.
#pragma once

#include <cmath>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define CUDA_EMU_HALF(name, expression)                            \
  static inline __half h##name(__half value) {                     \
    const float x = __half2float(value);                           \
    return __float2half(expression);                               \
  }                                                                \
  static inline __nv_bfloat16 h##name(__nv_bfloat16 value) {       \
    const float x = __bfloat162float(value);                       \
    return __float2bfloat16(expression);                           \
  }                                                                \
  static inline __half2 h2##name(__half2 value) {                  \
    return __halves2half2(h##name(__low2half(value)), h##name(__high2half(value))); \
  }                                                                \
  static inline __nv_bfloat162 h2##name(__nv_bfloat162 value) {    \
    return __halves2bfloat162(h##name(__low2bfloat16(value)), h##name(__high2bfloat16(value))); \
  }

CUDA_EMU_HALF(sqrt, sqrtf(x))
CUDA_EMU_HALF(rsqrt, 1.0f / sqrtf(x))
CUDA_EMU_HALF(rcp, 1.0f / x)
CUDA_EMU_HALF(sin, sinf(x))
CUDA_EMU_HALF(cos, cosf(x))
CUDA_EMU_HALF(tanh, tanhf(x))
CUDA_EMU_HALF(exp, expf(x))
CUDA_EMU_HALF(exp2, exp2f(x))
CUDA_EMU_HALF(exp10, exp10f(x))
CUDA_EMU_HALF(log, logf(x))
CUDA_EMU_HALF(log2, log2f(x))
CUDA_EMU_HALF(log10, log10f(x))
CUDA_EMU_HALF(ceil, ceilf(x))
CUDA_EMU_HALF(floor, floorf(x))
CUDA_EMU_HALF(trunc, truncf(x))
CUDA_EMU_HALF(rint, rintf(x))
