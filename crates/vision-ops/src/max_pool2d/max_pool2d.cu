// Max pooling: a thread a window forward, a thread an input element backward. The twin of `cpu_kernel.rs`.
//
// Forward reads x once (windows that overlap find it in cache) and writes values and winners; backward reads each
// upstream gradient and winner as often as windows overlap and writes the gradient once. Each element is computed
// alone: no shared memory, no atomics, the same bits in any order.
//
// Grid: ceil(threads / 256) blocks along x. Block: 256 threads.
#include "windows.cuh"

// `winners` may be null where no gradient is wanted.
template <class T, class Index>
static __device__ __forceinline__ void forward(const T* x, T* y, Index* winners, const PlaneStrides strides, const PoolSizes sizes,
                                               const uint64_t windows) {
  const uint64_t window = thread_index();
  if (window >= windows) return;
  uint64_t rest = window;
  const uint32_t j = split(rest, sizes.columns);
  const uint32_t i = split(rest, sizes.rows);
  const uint32_t channel = split(rest, sizes.channels);
  const T* corner = x + rest * strides.image + channel * strides.channel + (uint64_t)i * sizes.stride_rows * strides.row +
                    (uint64_t)j * sizes.stride_columns * strides.column;
  uint32_t winner;
  const auto read = [](T element) { return widen(element); };
  narrow(window_maximum(corner, sizes, strides.row, strides.column, read, winner), y[window]);
  if (winners) winners[window] = (Index)winner;
}

// `upstream` and `winners` are row-major of (planes, rows, columns), `gradient` of (planes, height, width).
template <class T, class Index>
static __device__ __forceinline__ void backward(const T* upstream, const Index* winners, T* gradient, const PoolSizes sizes,
                                                const uint64_t elements) {
  const uint64_t element = thread_index();
  if (element >= elements) return;
  uint64_t plane = element;
  const uint32_t w = split(plane, sizes.width);
  const uint32_t h = split(plane, sizes.height);
  narrow(gathered(upstream, winners, sizes, plane, h, w, [](uint64_t) { return true; }), gradient[element]);
}

#define KERNELS(T, name, Index, index)                                                                                   \
  extern "C" __global__ void __launch_bounds__(256) max_pool2d_forward_##name##_##index(                                 \
      const T* x, T* y, Index* winners, const PlaneStrides strides, const PoolSizes sizes, const uint64_t windows) {     \
    forward(x, y, winners, strides, sizes, windows);                                                                     \
  }                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(256) max_pool2d_backward_##name##_##index(                                \
      const T* upstream, const Index* winners, T* gradient, const PoolSizes sizes, const uint64_t elements) {            \
    backward(upstream, winners, gradient, sizes, elements);                                                              \
  }
#define BOTH_INDICES(T, name)        \
  KERNELS(T, name, uint8_t, u8)      \
  KERNELS(T, name, uint32_t, u32)
FOR_EACH_ELEMENT(BOTH_INDICES)
