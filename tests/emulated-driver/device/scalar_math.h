// CUDA's scalar functions and intrinsics that the host's library lacks or names otherwise.
//
// Fast intrinsics (`__expf`) are computed exactly here: a GPU's result differs in the last bits. Conversions saturate
// and map NaN to zero as on the device, where C++ leaves them undefined.
#pragma once

#include <climits>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

// glibc declares these names itself, so they cannot be functions here.
#define __expf(x) expf(x)
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
#define __powf(x, y) powf(x, y)
#define __sincosf(x, s, c) sincosf(x, s, c)

using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;

// min and max of mixed arithmetic types, as CUDA's overloads allow. NaN loses, as with fminf.
#define CUDA_EMU_MINMAX(T)                                \
  static inline T min(T a, T b) { return b < a ? b : a; } \
  static inline T max(T a, T b) { return a < b ? b : a; }
CUDA_EMU_MINMAX(int)
CUDA_EMU_MINMAX(unsigned)
CUDA_EMU_MINMAX(long)
CUDA_EMU_MINMAX(unsigned long)
CUDA_EMU_MINMAX(long long)
CUDA_EMU_MINMAX(unsigned long long)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
template <class A, class B>
using cuda_emu_mixed = std::enable_if_t<!std::is_same<A, B>::value && std::is_arithmetic<A>::value &&
                                            std::is_arithmetic<B>::value,
                                        std::common_type_t<A, B>>;
template <class A, class B>
static inline cuda_emu_mixed<A, B> min(A a, B b) {
  using C = std::common_type_t<A, B>;
  return (C)b < (C)a ? (C)b : (C)a;
}
template <class A, class B>
static inline cuda_emu_mixed<A, B> max(A a, B b) {
  using C = std::common_type_t<A, B>;
  return (C)a < (C)b ? (C)b : (C)a;
}

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
static inline float normcdff(float x) { return (float)(0.5 * erfc(-(double)x * M_SQRT1_2)); }
static inline double normcdf(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }
static inline float sinpif(float x) { return (float)sin(M_PI * (double)x); }
static inline float cospif(float x) { return (float)cos(M_PI * (double)x); }

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; bit++) reversed |= ((x >> bit) & 1u) << (31 - bit);
  return reversed;
}
static inline int __mulhi(int a, int b) { return (int)(((long long)a * b) >> 32); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}

namespace cuda_emu {
template <class To, class From>
inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "a reinterpretation keeps the size");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
// Out of range saturates, NaN gives zero.
template <class To, class From>
inline To saturate(From rounded) {
  if (rounded != rounded) return 0;
  if (rounded <= (From)std::numeric_limits<To>::min()) return std::numeric_limits<To>::min();
  if (rounded >= (From)std::numeric_limits<To>::max()) return std::numeric_limits<To>::max();
  return (To)rounded;
}
}  // namespace cuda_emu

static inline float __int_as_float(int x) { return cuda_emu::bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return cuda_emu::bits<float>(x); }
static inline int __float_as_int(float x) { return cuda_emu::bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return cuda_emu::bits<unsigned>(x); }
static inline double __longlong_as_double(long long x) { return cuda_emu::bits<double>(x); }
static inline long long __double_as_longlong(double x) { return cuda_emu::bits<long long>(x); }

#define CUDA_EMU_CONVERT(prefix, From, rint_, floor_, ceil_, trunc_)                                             \
  static inline int prefix##2int_rn(From x) { return cuda_emu::saturate<int>(rint_(x)); }                        \
  static inline int prefix##2int_rd(From x) { return cuda_emu::saturate<int>(floor_(x)); }                       \
  static inline int prefix##2int_ru(From x) { return cuda_emu::saturate<int>(ceil_(x)); }                        \
  static inline int prefix##2int_rz(From x) { return cuda_emu::saturate<int>(trunc_(x)); }                       \
  static inline unsigned prefix##2uint_rn(From x) { return cuda_emu::saturate<unsigned>(rint_(x)); }             \
  static inline unsigned prefix##2uint_rz(From x) { return cuda_emu::saturate<unsigned>(trunc_(x)); }            \
  static inline long long prefix##2ll_rn(From x) { return cuda_emu::saturate<long long>(rint_(x)); }             \
  static inline long long prefix##2ll_rz(From x) { return cuda_emu::saturate<long long>(trunc_(x)); }            \
  static inline unsigned long long prefix##2ull_rn(From x) { return cuda_emu::saturate<unsigned long long>(rint_(x)); } \
  static inline unsigned long long prefix##2ull_rz(From x) { return cuda_emu::saturate<unsigned long long>(trunc_(x)); }
CUDA_EMU_CONVERT(__float, float, rintf, floorf, ceilf, truncf)
CUDA_EMU_CONVERT(__double, double, rint, floor, ceil, trunc)
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }
static inline float __ll2float_rn(long long x) { return (float)x; }
static inline float __ull2float_rn(unsigned long long x) { return (float)x; }
static inline double __int2double_rn(int x) { return (double)x; }
static inline double __ll2double_rn(long long x) { return (double)x; }
static inline float __double2float_rn(double x) { return (float)x; }
