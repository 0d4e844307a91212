// The two halves of convolution around a matrix product: the image as columns, and columns back to the image.
//
// A column row holds what one output position of one group sees: for image n, group g, position p = (i, j) and tap
// k = (c, a, b) it is x[n, c of g, i * stride + a * dilation - padding, j * ...], 0 outside the image. With K taps and P
// positions the columns are row-major of (images, groups, P, K), so that
//
//   y[n, g] (outputs x P) = weight[g] (outputs x K) * columns[n, g]^T,
//
// or of (groups, images, P, K), so that the gradient of a group's weight is one product over all images.
//
// Each element is computed alone and written once, the gradient of x as a sum over taps in a fixed order: no shared
// memory, no atomics, the same bits in any order.
//
// Grid: ceil(threads / 256) blocks along x. Block: 256 threads.
#include "../cuda_kernel/elements.cuh"

// `ConvSizes` in `cuda_kernel.rs` is the same in Rust.
struct ConvSizes {
  uint32_t images_in_group;                  // 0 where groups are inside images
  uint32_t groups, group_inputs;             // input channels of a group
  uint32_t height, width;                    // of an image
  uint32_t rows, columns;                    // of the result
  uint32_t kernel_rows, kernel_columns;
  uint32_t stride_rows, stride_columns;
  uint32_t padding_rows, padding_columns;
  uint32_t dilation_rows, dilation_columns;
};

// A thread an element of `columns`. `x` is row-major of (images, channels, height, width).
template <class T>
static __device__ __forceinline__ void image_to_columns(const T* x, T* columns, const ConvSizes s, const uint64_t elements) {
  const uint64_t element = thread_index();
  if (element >= elements) return;
  uint64_t rest = element;
  const uint32_t b = split(rest, s.kernel_columns);
  const uint32_t a = split(rest, s.kernel_rows);
  const uint32_t c = split(rest, s.group_inputs);
  const uint32_t j = split(rest, s.columns);
  const uint32_t i = split(rest, s.rows);
  // What is left is (image, group) or (group, image); in x a group's channels follow those of the group before.
  if (s.images_in_group) {
    const uint64_t image = split(rest, s.images_in_group);
    rest += image * s.groups;
  }
  const uint64_t plane = rest * s.group_inputs + c;
  const int64_t h = (int64_t)i * s.stride_rows + (int64_t)a * s.dilation_rows - s.padding_rows;
  const int64_t w = (int64_t)j * s.stride_columns + (int64_t)b * s.dilation_columns - s.padding_columns;
  const bool inside = h >= 0 && h < s.height && w >= 0 && w < s.width;
  T value;
  narrow(Compute<T>(0), value);
  if (inside) value = x[(plane * s.height + (uint64_t)h) * s.width + (uint64_t)w];
  columns[element] = value;
}

// The window that sees `position` (of the padded image) with this tap, if there is one.
static __device__ __forceinline__ bool window_of(uint64_t position, uint64_t reach, uint32_t stride, uint32_t windows,
                                                 uint64_t& window) {
  if (position < reach) return false;
  uint64_t quotient = position - reach;
  if (split(quotient, stride) != 0) return false;
  window = quotient;
  return window < windows;
}

// A thread an element of x's gradient, row-major. `columns` holds the gradient of the columns.
template <class T>
static __device__ __forceinline__ void columns_to_image(const T* columns, T* gradient, const ConvSizes s, const uint64_t elements) {
  const uint64_t element = thread_index();
  if (element >= elements) return;
  uint64_t rest = element;
  const uint64_t w = (uint64_t)split(rest, s.width) + s.padding_columns;
  const uint64_t h = (uint64_t)split(rest, s.height) + s.padding_rows;
  const uint64_t c = split(rest, s.group_inputs);
  Compute<T> sum = 0;
  for (uint32_t a = 0; a < s.kernel_rows; a++) {
    uint64_t i;
    if (!window_of(h, (uint64_t)a * s.dilation_rows, s.stride_rows, s.rows, i)) continue;
    for (uint32_t b = 0; b < s.kernel_columns; b++) {
      uint64_t j;
      if (!window_of(w, (uint64_t)b * s.dilation_columns, s.stride_columns, s.columns, j)) continue;
      const uint64_t row = (rest * s.rows + i) * s.columns + j;
      sum += widen(columns[((row * s.group_inputs + c) * s.kernel_rows + a) * s.kernel_columns + b]);
    }
  }
  narrow(sum, gradient[element]);
}

#define KERNELS(T, name)                                                                                              \
  extern "C" __global__ void __launch_bounds__(256) image_to_columns_##name(const T* x, T* columns,                   \
                                                                            const ConvSizes sizes,                    \
                                                                            const uint64_t elements) {                \
    image_to_columns(x, columns, sizes, elements);                                                                    \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(256) columns_to_image_##name(const T* columns, T* gradient,            \
                                                                            const ConvSizes sizes,                    \
                                                                            const uint64_t elements) {                \
    columns_to_image(columns, gradient, sizes, elements);                                                             \
  }
FOR_EACH_ELEMENT(KERNELS)
