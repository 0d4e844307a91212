// Adam's update of one parameter: weights and both moments in one pass. The twin of `cpu_kernel.rs`.
//
// Reads the gradient once, and reads and writes each weight and moment once. Each element is computed alone: no shared memory,
// no atomics. Sums of products are kept from becoming fused multiply-adds, so the bits are those of the CPU.
//
// Grid: ceil(elements / (256 * LANES)) blocks along x. Block: 256 threads, a thread LANES neighbouring elements.
#include <stdint.h>

// The numbers of one step; `Rounded` in `mod.rs` is the same in Rust.
template <class T>
struct Coefficients {
  T one_minus_beta1, beta2, one_minus_beta2, sqrt_bias_correction2, eps, minus_step_size, smallest_moment;
};

// What a thread moves at once.
template <class T>
constexpr uint32_t LANES = 16 / sizeof(T);
template <class T>
struct alignas(16) Vector {
  T lanes[LANES<T>];
};

static __device__ __forceinline__ float rounded_sum(float a, float b) { return __fadd_rn(a, b); }
static __device__ __forceinline__ double rounded_sum(double a, double b) { return __dadd_rn(a, b); }
static __device__ __forceinline__ float root(float x) { return sqrtf(x); }
static __device__ __forceinline__ double root(double x) { return sqrt(x); }

// NaN is kept.
template <class T>
static __device__ __forceinline__ T kept(const T moment, const Coefficients<T>& c) {
  return moment < c.smallest_moment && moment > -c.smallest_moment ? T(0) : moment;
}

template <class T>
static __device__ __forceinline__ void update(T& weight, const T gradient, T& first, T& second, const Coefficients<T>& c) {
  first = kept(rounded_sum(first, c.one_minus_beta1 * (gradient - first)), c);
  second = kept(rounded_sum(second * c.beta2, c.one_minus_beta2 * gradient * gradient), c);
  const T denominator = root(second) / c.sqrt_bias_correction2 + c.eps;
  weight += c.minus_step_size * first / denominator;
}

// Vectors where all four addresses are aligned, which they are unless a tensor starts in the middle of its storage; element by
// element elsewhere and in the tail.
template <class T>
static __device__ __forceinline__ void adam(T* weights, const T* gradient, T* first, T* second, const Coefficients<T>& c,
                                            const uint64_t elements) {
  const uint64_t from = ((uint64_t)blockIdx.x * blockDim.x + threadIdx.x) * LANES<T>;
  if (from >= elements) return;
  const uintptr_t addresses = (uintptr_t)weights | (uintptr_t)gradient | (uintptr_t)first | (uintptr_t)second;
  if (addresses % 16 == 0 && elements - from >= LANES<T>) {
    Vector<T> w = *reinterpret_cast<const Vector<T>*>(weights + from);
    const Vector<T> g = *reinterpret_cast<const Vector<T>*>(gradient + from);
    Vector<T> m = *reinterpret_cast<const Vector<T>*>(first + from);
    Vector<T> v = *reinterpret_cast<const Vector<T>*>(second + from);
#pragma unroll
    for (uint32_t i = 0; i < LANES<T>; i++) update(w.lanes[i], g.lanes[i], m.lanes[i], v.lanes[i], c);
    *reinterpret_cast<Vector<T>*>(weights + from) = w;
    *reinterpret_cast<Vector<T>*>(first + from) = m;
    *reinterpret_cast<Vector<T>*>(second + from) = v;
    return;
  }
  const uint64_t to = elements - from < LANES<T> ? elements : from + LANES<T>;
  for (uint64_t i = from; i < to; i++) {
    T w = weights[i], m = first[i], v = second[i];
    update(w, gradient[i], m, v, c);
    weights[i] = w;
    first[i] = m;
    second[i] = v;
  }
}

#define KERNEL(T, name)                                                                                              \
  extern "C" __global__ void __launch_bounds__(256) adam_##name(T* weights, const T* gradient, T* first, T* second,  \
                                                                const Coefficients<T> c, const uint64_t elements) {  \
    adam(weights, gradient, first, second, c, elements);                                                             \
  }
KERNEL(float, f32)
KERNEL(double, f64)
