// What surrounds a matrix product in every layer: bias and relu after it, relu's gradient and the bias's before its way back.
//
// Tensors are row-major of (outer, channels, inner): a dense layer's result has inner 1, a convolution's the positions of an
// image.
#include "elements.cuh"

// Adds the channel's bias where there is one, then applies relu where asked for, in place. NaN is not below 0 and stays.
// Grid: ceil(elements / 256). Block: 256 threads, a thread an element.
template <class T>
static __device__ __forceinline__ void bias_relu(T* y, const T* bias, const uint32_t channels, const uint32_t inner,
                                                 const uint32_t relu, const uint64_t elements) {
  const uint64_t element = thread_index();
  if (element >= elements) return;
  Compute<T> value = widen(y[element]);
  if (bias) {
    uint64_t rest = element;
    split(rest, inner);
    value += widen(bias[split(rest, channels)]);
  }
  if (relu && value <= 0) value = 0;
  narrow(value, y[element]);
}

// The upstream gradient where relu let its argument through: where the result is above 0 or NaN.
// Grid: ceil(elements / 256). Block: 256 threads, a thread an element.
template <class T>
static __device__ __forceinline__ void through_relu(const T* result, const T* upstream, T* gradient, const uint64_t elements) {
  const uint64_t element = thread_index();
  if (element >= elements) return;
  narrow(widen(result[element]) <= 0 ? Compute<T>(0) : widen(upstream[element]), gradient[element]);
}

// Sums over outer and inner, for each channel, in two stages of fixed order: `part_sums` is (parts, channels), and a part
// takes `part_outer` of the outer places. Grid: (ceil(channels / 32), parts) where inner is 1, so that neighbouring lanes
// read neighbouring channels; (channels, parts) elsewhere, with the lanes along inner. Block: (32, 8) threads.
static const uint32_t LANES = 32, WARPS = 8;

template <class T>
static __device__ __forceinline__ void channel_part_sums(const T* x, Compute<T>* part_sums, const uint64_t outer,
                                                         const uint32_t channels, const uint64_t inner, const uint64_t part_outer) {
  __shared__ Compute<T> sums[WARPS][LANES + 1];
  const uint32_t lane = threadIdx.x, warp = threadIdx.y;
  const bool across = inner == 1;
  const uint32_t channel = across ? blockIdx.x * LANES + lane : blockIdx.x;
  const uint64_t from = blockIdx.y * part_outer;
  const uint64_t to = from + part_outer < outer ? from + part_outer : outer;
  Compute<T> sum = 0;
  if (channel < channels)
    for (uint64_t o = from + warp; o < to; o += WARPS) {
      const T* row = x + (o * channels + channel) * inner;
      if (across)
        sum += widen(row[0]);
      else
        for (uint64_t i = lane; i < inner; i += LANES) sum += widen(row[i]);
    }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp != 0) return;
  for (uint32_t other = 1; other < WARPS; other++) sum += sums[other][lane];
  if (!across)
    for (uint32_t distance = LANES / 2; distance > 0; distance /= 2) sum += __shfl_down_sync(0xffffffffu, sum, distance);
  if (channel < channels && (across || lane == 0)) part_sums[(uint64_t)blockIdx.y * channels + channel] = sum;
}

// The second stage. Grid: ceil(channels / 256). Block: 256 threads, a thread a channel.
template <class T>
static __device__ __forceinline__ void channel_sums(const Compute<T>* part_sums, T* sums, const uint32_t parts, const uint32_t channels) {
  const uint64_t channel = thread_index();
  if (channel >= channels) return;
  Compute<T> sum = 0;
  for (uint64_t part = 0; part < parts; part++) sum += part_sums[part * channels + channel];
  narrow(sum, sums[channel]);
}

#define KERNELS(T, name)                                                                                              \
  extern "C" __global__ void __launch_bounds__(256) bias_relu_##name(T* y, const T* bias, const uint32_t channels,    \
                                                                     const uint32_t inner, const uint32_t relu,       \
                                                                     const uint64_t elements) {                       \
    bias_relu(y, bias, channels, inner, relu, elements);                                                              \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(256) through_relu_##name(const T* result, const T* upstream,           \
                                                                        T* gradient, const uint64_t elements) {       \
    through_relu(result, upstream, gradient, elements);                                                               \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(256) channel_part_sums_##name(                                         \
      const T* x, Compute<T>* part_sums, const uint64_t outer, const uint32_t channels, const uint64_t inner,         \
      const uint64_t part_outer) {                                                                                    \
    channel_part_sums(x, part_sums, outer, channels, inner, part_outer);                                              \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(256) channel_sums_##name(const Compute<T>* part_sums, T* sums,         \
                                                                        const uint32_t parts,                         \
                                                                        const uint32_t channels) {                    \
    channel_sums<T>(part_sums, sums, parts, channels);                                                                \
  }
FOR_EACH_ELEMENT(KERNELS)
