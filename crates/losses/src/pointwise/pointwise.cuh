// The one mechanism behind every pointwise loss on CUDA: the twin of `cpu_kernel.rs`, `float.rs` and `dual.rs`.
//
// A loss is a struct with its formula as a template over the kind of number, just as in Rust:
//
//   #include "pointwise.cuh"
//
//   // ln cosh(x - t)
//   struct LogCosh : Formula<LogCosh> {
//     template <class F>
//     __device__ F value(F x, F t) const {
//       const F d = (x - t).abs();
//       return d + (F::of(-2.0) * d).exp().ln_1p() - F::of(0.6931471805599453);
//     }
//   };
//   POINTWISE_KERNELS(log_cosh, LogCosh)
//
// `derivative` and `target_derivative` have the same parameters and are taken of `value` unless they are given. A formula with
// a constant of each element takes it as a third parameter. A struct that can be made from `Constants` gets the numbers that
// the Rust side names.
//
//   out_i = scale * h(x_i, t_i, p_i) * g_i * k_i * w_i        h: the loss or one of its derivatives
//   sum   = sum_i of the same                                 g, k: upstream gradients, w: weight
//
// f16 and bf16 are computed in f32 and rounded once; sums are taken in f64, in an order that depends on the number of elements
// alone. No atomics, one barrier in a sum.
#pragma once

#include <stdint.h>

#include <type_traits>

#include "../cuda_kernel/element.cuh"
#include "../cuda_kernel/levels.cuh"
#include "../cuda_kernel/reduce.cuh"

// ---- Numbers -----------------------------------------------------------------------------------------------------------------

#define POINTWISE_INLINE __device__ __forceinline__

// f32 or f64 with the functions of `Float`, under the same names.
template <class R>
struct Number {
  R value;

  static POINTWISE_INLINE Number of(double constant) { return {(R)constant}; }
  POINTWISE_INLINE bool is_zero() const { return value == 0; }
  POINTWISE_INLINE Number abs() const { return {value < 0 ? -value : value == 0 ? R(0) : value}; }
  POINTWISE_INLINE Number sign() const { return {value > 0 ? R(1) : value < 0 ? R(-1) : value}; }
  POINTWISE_INLINE Number max(Number other) const { return value < other.value || other.value != other.value ? other : *this; }
  POINTWISE_INLINE Number min(Number other) const { return value > other.value || other.value != other.value ? other : *this; }
  POINTWISE_INLINE Number sqrt() const { return {root(value)}; }
  POINTWISE_INLINE Number powf(double exponent) const { return {power(value, (R)exponent)}; }
  POINTWISE_INLINE Number exp() const { return {exponential(value)}; }
  POINTWISE_INLINE Number ln() const { return {logarithm(value)}; }
  POINTWISE_INLINE Number ln_1p() const { return {logarithm_1p(value)}; }
  POINTWISE_INLINE Number sin() const { return {sine(value)}; }
  POINTWISE_INLINE Number cos() const { return {cosine(value)}; }
  POINTWISE_INLINE Number tanh() const { return {hyperbolic_tangent(value)}; }
  // 1 / (1 + exp(-x)): exp of a number that is never positive cannot overflow.
  POINTWISE_INLINE Number sigmoid() const {
    const R e = exponential(-abs().value);
    return {value < 0 ? e / (1 + e) : 1 / (1 + e)};
  }
  // ln(1 + exp(x)), without overflow.
  POINTWISE_INLINE Number softplus() const { return max(of(0.0)) + (-abs()).exp().ln_1p(); }

  friend POINTWISE_INLINE Number operator+(Number a, Number b) { return {a.value + b.value}; }
  friend POINTWISE_INLINE Number operator-(Number a, Number b) { return {a.value - b.value}; }
  friend POINTWISE_INLINE Number operator*(Number a, Number b) { return {a.value * b.value}; }
  friend POINTWISE_INLINE Number operator/(Number a, Number b) { return {a.value / b.value}; }
  POINTWISE_INLINE Number operator-() const { return {-value}; }
  friend POINTWISE_INLINE bool operator<(Number a, Number b) { return a.value < b.value; }
  friend POINTWISE_INLINE bool operator>(Number a, Number b) { return a.value > b.value; }
  friend POINTWISE_INLINE bool operator<=(Number a, Number b) { return a.value <= b.value; }
  friend POINTWISE_INLINE bool operator>=(Number a, Number b) { return a.value >= b.value; }
  friend POINTWISE_INLINE bool operator==(Number a, Number b) { return a.value == b.value; }

 private:
  static POINTWISE_INLINE float root(float x) { return ::sqrtf(x); }
  static POINTWISE_INLINE double root(double x) { return ::sqrt(x); }
  // Long, and rare: calls keep the kernels small.
  static __device__ __attribute__((noinline)) float power(float x, float y) { return ::powf(x, y); }
  static __device__ __attribute__((noinline)) double power(double x, double y) { return ::pow(x, y); }
  static POINTWISE_INLINE float exponential(float x) { return ::expf(x); }
  static POINTWISE_INLINE double exponential(double x) { return ::exp(x); }
  static POINTWISE_INLINE float logarithm(float x) { return ::logf(x); }
  static POINTWISE_INLINE double logarithm(double x) { return ::log(x); }
  static POINTWISE_INLINE float logarithm_1p(float x) { return ::log1pf(x); }
  static POINTWISE_INLINE double logarithm_1p(double x) { return ::log1p(x); }
  static POINTWISE_INLINE float sine(float x) { return ::sinf(x); }
  static POINTWISE_INLINE double sine(double x) { return ::sin(x); }
  static POINTWISE_INLINE float cosine(float x) { return ::cosf(x); }
  static POINTWISE_INLINE double cosine(double x) { return ::cos(x); }
  static POINTWISE_INLINE float hyperbolic_tangent(float x) { return ::tanhf(x); }
  static POINTWISE_INLINE double hyperbolic_tangent(double x) { return ::tanh(x); }
};

// A number and its derivative, carried through a formula together: `dual.rs`.
template <class F>
struct Dual {
  F value, slope;

  static POINTWISE_INLINE Dual variable(F value) { return {value, F::of(1.0)}; }
  static POINTWISE_INLINE Dual constant(F value) { return {value, F::of(0.0)}; }
  static POINTWISE_INLINE Dual of(double value) { return constant(F::of(value)); }
  // A function's value, and the chain rule. A constant stays one where the derivative is infinite: 0 * inf would be NaN.
  POINTWISE_INLINE Dual chain(F result, F derivative) const {
    return {result, slope.is_zero() ? slope : derivative * slope};
  }

  POINTWISE_INLINE bool is_zero() const { return value.is_zero() && slope.is_zero(); }
  POINTWISE_INLINE Dual abs() const { return chain(value.abs(), value.sign()); }
  POINTWISE_INLINE Dual sign() const { return constant(value.sign()); }
  POINTWISE_INLINE Dual max(Dual other) const { return value < other.value || !(other.value == other.value) ? other : *this; }
  POINTWISE_INLINE Dual min(Dual other) const { return value > other.value || !(other.value == other.value) ? other : *this; }
  POINTWISE_INLINE Dual sqrt() const {
    const F root = value.sqrt();
    return chain(root, F::of(0.5) / root);
  }
  POINTWISE_INLINE Dual powf(double exponent) const {
    // x^0 is 1 everywhere; the general rule gives 0 * x^-1, which is NaN at 0.
    if (exponent == 0.0) return of(1.0);
    return chain(value.powf(exponent), F::of(exponent) * value.powf(exponent - 1.0));
  }
  POINTWISE_INLINE Dual exp() const {
    const F e = value.exp();
    return chain(e, e);
  }
  POINTWISE_INLINE Dual ln() const { return chain(value.ln(), F::of(1.0) / value); }
  POINTWISE_INLINE Dual ln_1p() const { return chain(value.ln_1p(), F::of(1.0) / (F::of(1.0) + value)); }
  POINTWISE_INLINE Dual sin() const { return chain(value.sin(), value.cos()); }
  POINTWISE_INLINE Dual cos() const { return chain(value.cos(), -value.sin()); }
  POINTWISE_INLINE Dual tanh() const {
    const F t = value.tanh();
    return chain(t, F::of(1.0) - t * t);
  }
  POINTWISE_INLINE Dual sigmoid() const {
    const F s = value.sigmoid();
    return chain(s, s * (-value).sigmoid());
  }
  POINTWISE_INLINE Dual softplus() const { return chain(value.softplus(), value.sigmoid()); }

  friend POINTWISE_INLINE Dual operator+(Dual a, Dual b) { return {a.value + b.value, a.slope + b.slope}; }
  friend POINTWISE_INLINE Dual operator-(Dual a, Dual b) { return {a.value - b.value, a.slope - b.slope}; }
  friend POINTWISE_INLINE Dual operator*(Dual a, Dual b) {
    return {a.value * b.value, a.chain(a.value, b.value).slope + b.chain(b.value, a.value).slope};
  }
  friend POINTWISE_INLINE Dual operator/(Dual a, Dual b) {
    const F quotient = a.value / b.value;
    return {quotient, a.chain(quotient, F::of(1.0) / b.value).slope + b.chain(quotient, -quotient / b.value).slope};
  }
  POINTWISE_INLINE Dual operator-() const { return {-value, -slope}; }
  friend POINTWISE_INLINE bool operator<(Dual a, Dual b) { return a.value < b.value; }
  friend POINTWISE_INLINE bool operator>(Dual a, Dual b) { return a.value > b.value; }
  friend POINTWISE_INLINE bool operator<=(Dual a, Dual b) { return a.value <= b.value; }
  friend POINTWISE_INLINE bool operator>=(Dual a, Dual b) { return a.value >= b.value; }
  friend POINTWISE_INLINE bool operator==(Dual a, Dual b) { return a.value == b.value; }
};

// `factor * value`, and 0 where the factor is 0, whatever the value.
template <class F>
static POINTWISE_INLINE F times(F factor, F value) {
  const F product = factor * value;
  return factor.is_zero() ? F::of(0.0) : product;
}

// ---- Formulas ----------------------------------------------------------------------------------------------------------------

// What the Rust side names beside the kernels: delta, gamma and the like.
struct Constants {
  double at[4];
};

// A formula with or without a constant of each element, called either way.
#define POINTWISE_CALL(name)                                                                                           \
  template <class L, class F>                                                                                          \
  static POINTWISE_INLINE auto call_##name(const L& loss, F x, F t, F p, int)->decltype(loss.name(x, t, p)) {          \
    return loss.name(x, t, p);                                                                                         \
  }                                                                                                                    \
  template <class L, class F>                                                                                          \
  static POINTWISE_INLINE auto call_##name(const L& loss, F x, F t, F, long)->decltype(loss.name(x, t)) {              \
    return loss.name(x, t);                                                                                            \
  }
POINTWISE_CALL(value)
POINTWISE_CALL(derivative)
POINTWISE_CALL(target_derivative)

// Gives a formula the derivatives that it does not state.
template <class Self>
struct Formula {
  template <class F>
  POINTWISE_INLINE F derivative(F x, F t, F p) const {
    using D = Dual<F>;
    return call_value(*static_cast<const Self*>(this), D::variable(x), D::constant(t), D::constant(p), 0).slope;
  }
  template <class F>
  POINTWISE_INLINE F target_derivative(F x, F t, F p) const {
    using D = Dual<F>;
    return call_value(*static_cast<const Self*>(this), D::constant(x), D::variable(t), D::constant(p), 0).slope;
  }
};

template <class L>
static POINTWISE_INLINE L made_from(const Constants& constants) {
  if constexpr (std::is_constructible<L, Constants>::value)
    return L(constants);
  else
    return L{};
}

// `Partial` in `cpu_kernel.rs`.
enum Partial : uint32_t { VALUE, INPUT, TARGET, INPUT_INPUT, INPUT_TARGET, TARGET_TARGET };

// The loss or a first derivative.
template <class L, class F>
static POINTWISE_INLINE F first(const L& loss, uint32_t partial, F x, F t, F p) {
  switch (partial) {
    case VALUE: return call_value(loss, x, t, p, 0);
    case INPUT: return call_derivative(loss, x, t, p, 0);
    default: return call_target_derivative(loss, x, t, p, 0);
  }
}

// Any of them. Second derivatives are those of the first ones.
template <class L, class F>
static POINTWISE_INLINE F any(const L& loss, uint32_t partial, F x, F t, F p) {
  using D = Dual<F>;
  switch (partial) {
    case INPUT_INPUT: return call_derivative(loss, D::variable(x), D::constant(t), D::constant(p), 0).slope;
    case INPUT_TARGET: return call_derivative(loss, D::constant(x), D::variable(t), D::constant(p), 0).slope;
    case TARGET_TARGET: return call_target_derivative(loss, D::constant(x), D::variable(t), D::constant(p), 0).slope;
    default: return first(loss, partial, x, t, p);
  }
}

// ---- Elements in memory ------------------------------------------------------------------------------------------------------

// The operands, in the order of the strides. Input, target, parameter and weight are of the input's type, upstream gradients of
// that which is computed in. Those from the parameter on may be null: then they are 1.
enum Place : uint32_t { INPUTS, TARGETS, PARAMETERS, WEIGHTS, UPSTREAM, SECOND_UPSTREAM, PLACES };

template <class E>
struct Operands {
  const E *x, *t, *p, *w;
  const Compute<E> *g, *k;
};

// Loads SIZE consecutive elements, 16 bytes at a time; `one` says that a single number serves all elements. What lies beyond
// `count` reads as 0.
template <uint32_t SIZE, class S, class F>
static POINTWISE_INLINE void load(const S* from, bool one, uint64_t start, uint64_t count, F* to) {
  if (one) {
    const F value = {widen(from[0])};
#pragma unroll
    for (uint32_t v = 0; v < SIZE; v++) to[v] = value;
  } else if (start + SIZE <= count) {
#pragma unroll
    for (uint32_t part = 0; part < SIZE; part += LANES<S>) {
      Compute<S> lanes[LANES<S>];
      load_lanes(from + start + part, lanes);
#pragma unroll
      for (uint32_t v = 0; v < LANES<S>; v++) to[part + v] = {lanes[v]};
    }
  } else {
#pragma unroll
    for (uint32_t v = 0; v < SIZE; v++) to[v] = start + v < count ? F{widen(from[start + v])} : F::of(0.0);
  }
}

// Multiplies SIZE numbers with those of an operand, if there is one.
template <uint32_t SIZE, class S, class F>
static POINTWISE_INLINE void multiply(const S* from, bool one, uint64_t start, uint64_t count, F* numbers) {
  if (!from) return;
  F factors[SIZE];
  load<SIZE>(from, one, start, count, factors);
#pragma unroll
  for (uint32_t v = 0; v < SIZE; v++) numbers[v] = numbers[v] * factors[v];
}

// Stores SIZE consecutive elements, as they are loaded.
template <uint32_t SIZE, class S, class F>
static POINTWISE_INLINE void store(S* to, uint64_t start, uint64_t count, const F* numbers) {
  if (start + SIZE <= count) {
#pragma unroll
    for (uint32_t part = 0; part < SIZE; part += LANES<S>) {
      Compute<S> lanes[LANES<S>];
#pragma unroll
      for (uint32_t v = 0; v < LANES<S>; v++) lanes[v] = numbers[part + v].value;
      store_lanes(lanes, to + start + part);
    }
  } else {
#pragma unroll
    for (uint32_t v = 0; v < SIZE; v++)
      if (start + v < count) to[start + v] = narrow<S>(numbers[v].value);
  }
}

static POINTWISE_INLINE uint64_t pointwise_thread() { return (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; }
static POINTWISE_INLINE uint64_t pointwise_threads() { return (uint64_t)gridDim.x * blockDim.x; }

// ---- Contiguous operands -----------------------------------------------------------------------------------------------------

// SIZE results from `start` on, without the scale. Bit n of `ones` says that operand n is one number for all elements.
template <uint32_t SIZE, class E, class Evaluate>
static POINTWISE_INLINE void results_of(const Operands<E>& o, uint32_t ones, uint64_t start, uint64_t count, Evaluate evaluate,
                                        Number<Compute<E>>* y) {
  using F = Number<Compute<E>>;
  F x[SIZE], t[SIZE], p[SIZE];
  load<SIZE>(o.x, ones >> INPUTS & 1, start, count, x);
  load<SIZE>(o.t, ones >> TARGETS & 1, start, count, t);
#pragma unroll
  for (uint32_t v = 0; v < SIZE; v++) p[v] = F::of(1.0);
  if (o.p) load<SIZE>(o.p, ones >> PARAMETERS & 1, start, count, p);
#pragma unroll
  for (uint32_t v = 0; v < SIZE; v++) y[v] = evaluate(x[v], t[v], p[v]);
  multiply<SIZE>(o.g, ones >> UPSTREAM & 1, start, count, y);
  multiply<SIZE>(o.k, ones >> SECOND_UPSTREAM & 1, start, count, y);
  multiply<SIZE>(o.w, ones >> WEIGHTS & 1, start, count, y);
}

// Every element's result: the loss into `wide`, or a derivative by input or target into `narrowed`; the other one is null.
// Block: 256 threads, a thread LANES elements at a time. Grid: any; a block for every 256 * LANES elements serves best.
template <class L, class E>
static POINTWISE_INLINE void map(const Operands<E>& operands, Compute<E>* wide, E* narrowed, const L& loss, uint32_t ones,
                                 uint32_t partial, double scale, uint64_t count) {
  constexpr uint32_t SIZE = LANES<E>;
  using F = Number<Compute<E>>;
  const F factor = F::of(scale);
  const auto evaluate = [&](F x, F t, F p) { return first(loss, partial, x, t, p); };
  for (uint64_t start = pointwise_thread() * SIZE; start < count; start += pointwise_threads() * SIZE) {
    F y[SIZE];
    results_of<SIZE>(operands, ones, start, count, evaluate, y);
#pragma unroll
    for (uint32_t v = 0; v < SIZE; v++) y[v] = y[v] * factor;
    if (narrowed)
      store<SIZE>(narrowed, start, count, y);
    else
      store<SIZE>(wide, start, count, y);
  }
}

// The sum over the threads of a block. All threads take part.
static POINTWISE_INLINE double block_total(double sum) {
  __shared__ double partial[32];
  return block_reduce(sum, partial, 0.0, Add());
}

// The sum of the losses, a part for each block; `pointwise_total` adds the parts.
// Grid: as many parts as the Rust side takes for `count`. Block: 256 threads.
template <class L, class E>
static POINTWISE_INLINE void sum(const Operands<E>& operands, double* parts, const L& loss, uint32_t ones, uint64_t count) {
  constexpr uint32_t SIZE = LANES<E>;
  using F = Number<Compute<E>>;
  const auto evaluate = [&](F x, F t, F p) { return call_value(loss, x, t, p, 0); };
  double total = 0;
  for (uint64_t start = pointwise_thread() * SIZE; start < count; start += pointwise_threads() * SIZE) {
    F y[SIZE];
    results_of<SIZE>(operands, ones, start, count, evaluate, y);
#pragma unroll
    for (uint32_t v = 0; v < SIZE; v++)
      if (start + v < count) total += (double)y[v].value;
  }
  total = block_total(total);
  if (threadIdx.x == 0) parts[blockIdx.x] = total;
}

// ---- Operands of any layout --------------------------------------------------------------------------------------------------

// One result, without the scale; `at` are the places of its operands.
template <class L, class E>
static POINTWISE_INLINE Number<Compute<E>> result_at(const L& loss, const Operands<E>& o, const uint64_t (&at)[PLACES], uint32_t partial) {
  using F = Number<Compute<E>>;
  const F x = {widen(o.x[at[INPUTS]])}, t = {widen(o.t[at[TARGETS]])};
  const F p = o.p ? F{widen(o.p[at[PARAMETERS]])} : F::of(1.0);
  F y = any(loss, partial, x, t, p);
  if (o.g) y = y * F{o.g[at[UPSTREAM]]};
  if (o.k) y = y * F{o.k[at[SECOND_UPSTREAM]]};
  if (o.w) y = y * F{widen(o.w[at[WEIGHTS]])};
  return y;
}

// How the operands lie, for `locate`.
struct Lie {
  uint64_t inner;
  uint64_t strides[PLACES][2];
  const uint64_t* levels;
  uint32_t level_count;
};

// As `map`, for any partial derivative and layout. Block: 256 threads, a thread an element at a time. Grid: any.
template <class L, class E>
static POINTWISE_INLINE void strided_map(const Operands<E>& operands, Compute<E>* wide, E* narrowed, const Lie& lie, const L& loss,
                                         uint32_t partial, double scale, uint64_t count) {
  const auto factor = Number<Compute<E>>::of(scale);
  for (uint64_t index = pointwise_thread(); index < count; index += pointwise_threads()) {
    uint64_t at[PLACES];
    locate<PLACES>(index, lie.inner, lie.strides, lie.levels, lie.level_count, at);
    const Compute<E> y = (result_at(loss, operands, at, partial) * factor).value;
    if (narrowed)
      narrowed[index] = narrow<E>(y);
    else
      wide[index] = y;
  }
}

// As `sum`, for the loss and its first derivatives, in any layout. Grid: as many parts as the Rust side takes for `count`. Block:
// 256 threads.
template <class L, class E>
static POINTWISE_INLINE void strided_sum(const Operands<E>& operands, double* parts, const Lie& lie, const L& loss, uint32_t partial,
                                         uint64_t count) {
  double total = 0;
  for (uint64_t index = pointwise_thread(); index < count; index += pointwise_threads()) {
    uint64_t at[PLACES];
    locate<PLACES>(index, lie.inner, lie.strides, lie.levels, lie.level_count, at);
    total += (double)result_at(loss, operands, at, partial).value;
  }
  total = block_total(total);
  if (threadIdx.x == 0) parts[blockIdx.x] = total;
}

// ---- Kernels -----------------------------------------------------------------------------------------------------------------

// The arguments in the order in which `cuda_kernel.rs` passes them. Any pointer from p on may be null.
#define POINTWISE_OPERANDS(E) \
  const E *x, const E *t, const E *p, const E *w, const Compute<E>*g, const Compute<E>*k
#define POINTWISE_CONSTANTS const double constant0, const double constant1, const double constant2, const double constant3
#define POINTWISE_LIE                                                                                                 \
  const uint64_t inner, const uint64_t x1, const uint64_t x0, const uint64_t t1, const uint64_t t0, const uint64_t p1, \
      const uint64_t p0, const uint64_t w1, const uint64_t w0, const uint64_t g1, const uint64_t g0, const uint64_t k1, \
      const uint64_t k0, const uint64_t *levels, const uint32_t level_count
#define POINTWISE_LOSS(L) made_from<L>({{constant0, constant1, constant2, constant3}})
#define POINTWISE_LIES \
  {inner, {{x1, x0}, {t1, t0}, {p1, p0}, {w1, w0}, {g1, g0}, {k1, k0}}, levels, level_count}

#define POINTWISE_KERNELS_OF(name, L, E, type)                                                                        \
  extern "C" __global__ void __launch_bounds__(256) name##_map_##type(                                                \
      POINTWISE_OPERANDS(E), Compute<E>* wide, E* narrowed, POINTWISE_CONSTANTS, const uint32_t ones,                 \
      const uint32_t partial, const double scale, const uint64_t count) {                                             \
    map<L, E>({x, t, p, w, g, k}, wide, narrowed, POINTWISE_LOSS(L), ones, partial, scale, count);                    \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(256) name##_sum_##type(                                                \
      POINTWISE_OPERANDS(E), double* parts, POINTWISE_CONSTANTS, const uint32_t ones, const uint64_t count) {         \
    sum<L, E>({x, t, p, w, g, k}, parts, POINTWISE_LOSS(L), ones, count);                                             \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(256) name##_strided_map_##type(                                        \
      POINTWISE_OPERANDS(E), Compute<E>* wide, E* narrowed, POINTWISE_CONSTANTS, POINTWISE_LIE,                       \
      const uint32_t partial, const double scale, const uint64_t count) {                                             \
    strided_map<L, E>({x, t, p, w, g, k}, wide, narrowed, POINTWISE_LIES, POINTWISE_LOSS(L), partial, scale, count);  \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(256) name##_strided_sum_##type(                                        \
      POINTWISE_OPERANDS(E), double* parts, POINTWISE_CONSTANTS, POINTWISE_LIE, const uint32_t partial,               \
      const uint64_t count) {                                                                                         \
    strided_sum<L, E>({x, t, p, w, g, k}, parts, POINTWISE_LIES, POINTWISE_LOSS(L), partial, count);                  \
  }

// The kernels of loss `L` for every element type, called `name_map_f32` and so on.
#define POINTWISE_KERNELS(name, L)               \
  POINTWISE_KERNELS_OF(name, L, float, f32)      \
  POINTWISE_KERNELS_OF(name, L, double, f64)     \
  POINTWISE_KERNELS_OF(name, L, __half, f16)     \
  POINTWISE_KERNELS_OF(name, L, __nv_bfloat16, bf16)
