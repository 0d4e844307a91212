// Bias, relu and max pooling of a convolution's map in one pass, and the way back. The twin of `cpu_kernel/general.rs`.
//
// Forward reads the map once and writes a quarter of it (with 2 x 2 windows) and a byte for each result; backward writes the
// gradient of the map. The map with bias and relu is never stored. No shared memory, no atomics.
//
// Grid: ceil(threads / 256) blocks along x. Block: 256 threads.
#include "../max_pool2d/windows.cuh"

// `map` is row-major of (images, channels, height, width), `bias` of (channels), `y` and `winners` of (images, channels,
// rows, columns). A thread a window. The bias is added before elements are compared, as the separate ops do: rounding may
// make two of them equal. NaN is not below 0 and stays.
template <class T>
static __device__ __forceinline__ void forward(const T* map, const T* bias, T* y, uint8_t* winners, const PoolSizes sizes,
                                               const uint64_t windows) {
  const uint64_t window = thread_index();
  if (window >= windows) return;
  uint64_t plane = window;
  const uint32_t j = split(plane, sizes.columns);
  const uint32_t i = split(plane, sizes.rows);
  uint64_t image = plane;
  const Compute<T> shift = widen(bias[split(image, sizes.channels)]);
  const T* corner = map + (plane * sizes.height + (uint64_t)i * sizes.stride_rows) * sizes.width + (uint64_t)j * sizes.stride_columns;
  uint32_t winner;
  const auto read = [shift](T element) { return widen(element) + shift; };
  const Compute<T> maximum = window_maximum(corner, sizes, (uint64_t)sizes.width, (uint64_t)1, read, winner);
  narrow(maximum <= 0 ? Compute<T>(0) : maximum, y[window]);
  winners[window] = (uint8_t)winner;
}

// The gradient of the map, row-major. Nothing passes where the result is 0; NaN lets it pass. A thread an element of the map.
template <class T>
static __device__ __forceinline__ void backward(const T* upstream, const T* y, const uint8_t* winners, T* gradient,
                                                const PoolSizes sizes, const uint64_t elements) {
  const uint64_t element = thread_index();
  if (element >= elements) return;
  uint64_t plane = element;
  const uint32_t w = split(plane, sizes.width);
  const uint32_t h = split(plane, sizes.height);
  const auto passes = [y](uint64_t window) { return !(widen(y[window]) <= 0); };
  narrow(gathered(upstream, winners, sizes, plane, h, w, passes), gradient[element]);
}

#define KERNELS(T, name)                                                                                              \
  extern "C" __global__ void __launch_bounds__(256) relu_max_pool2d_forward_##name(                                   \
      const T* map, const T* bias, T* y, uint8_t* winners, const PoolSizes sizes, const uint64_t windows) {           \
    forward(map, bias, y, winners, sizes, windows);                                                                   \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(256) relu_max_pool2d_backward_##name(                                  \
      const T* upstream, const T* y, const uint8_t* winners, T* gradient, const PoolSizes sizes,                      \
      const uint64_t elements) {                                                                                      \
    backward(upstream, y, winners, gradient, sizes, elements);                                                        \
  }
FOR_EACH_ELEMENT(KERNELS)
