// Windows over planes of (rows, columns): the winner of a window, and the gradient that an element gets from its windows.
//
// Used by max pooling and by its fusion with bias and relu.
#pragma once

#include "../cuda_kernel/elements.cuh"

// The sizes of one pooling; `PoolSizes` in `max_pool2d/cuda_kernel.rs` is the same in Rust.
struct PoolSizes {
  uint32_t channels;
  uint32_t height, width;                  // of a plane that is pooled
  uint32_t rows, columns;                  // of a pooled plane
  uint32_t kernel_rows, kernel_columns;    // of a window
  uint32_t stride_rows, stride_columns;    // between windows
};

// Distances of neighbours in memory, in elements.
struct PlaneStrides {
  uint64_t image, channel, row, column;
};

// Scans the window at `corner` row by row. An element replaces the maximum so far where it is greater or NaN; `read` makes the
// number that counts of an element.
template <class T, class Read>
static __device__ __forceinline__ Compute<T> window_maximum(const T* corner, const PoolSizes& s, uint64_t row_stride,
                                                            uint64_t column_stride, Read read, uint32_t& winner) {
  Compute<T> maximum = read(corner[0]);
  winner = 0;
  for (uint32_t a = 0; a < s.kernel_rows; a++)
    for (uint32_t b = 0; b < s.kernel_columns; b++) {
      const Compute<T> value = read(corner[a * row_stride + b * column_stride]);
      if (value > maximum || value != value) {
        maximum = value;
        winner = a * s.kernel_columns + b;
      }
    }
  return maximum;
}

// The first window along an axis that reaches `position`, and one past the last.
struct Reach {
  uint32_t from, to;
};
static __device__ __forceinline__ Reach windows_at(uint32_t position, uint32_t kernel, uint32_t stride, uint32_t windows) {
  const uint32_t from = position < kernel ? 0 : (position - kernel) / stride + 1;
  const uint32_t last = position / stride;
  return {from, last < windows ? last + 1 : windows};
}

// Sums the upstream gradients of the windows that element (h, w) of a plane won, row by row: a fixed order, and no atomics.
// `counts` says whether a window's gradient passes at all.
template <class T, class Index, class Counts>
static __device__ __forceinline__ Compute<T> gathered(const T* upstream, const Index* winners, const PoolSizes& s, uint64_t plane,
                                                      uint32_t h, uint32_t w, Counts counts) {
  const Reach rows = windows_at(h, s.kernel_rows, s.stride_rows, s.rows);
  const Reach columns = windows_at(w, s.kernel_columns, s.stride_columns, s.columns);
  Compute<T> sum = 0;
  for (uint32_t i = rows.from; i < rows.to; i++)
    for (uint32_t j = columns.from; j < columns.to; j++) {
      const uint64_t window = (plane * s.rows + i) * s.columns + j;
      const uint32_t place = (h - i * s.stride_rows) * s.kernel_columns + (w - j * s.stride_columns);
      if (winners[window] == place && counts(window)) sum += widen(upstream[window]);
    }
  return sum;
}
