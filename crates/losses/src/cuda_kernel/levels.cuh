// Offsets into strided tensors that share their dimensions; `levels.rs` passes them.
#pragma once

#include <stdint.h>

// index / size, and the remainder.
static __device__ __forceinline__ uint64_t divide(const uint64_t index, const uint64_t size, uint64_t& remainder) {
  if ((index | size) >> 32 == 0) {
    const uint32_t quotient = (uint32_t)index / (uint32_t)size;
    remainder = (uint32_t)index - quotient * (uint32_t)size;
    return quotient;
  }
  // Bit by bit: rare, and a 64-bit division is a call, around which kernels would have to spill their registers.
  uint64_t quotient = 0, rest = 0;
  for (int bit = 63; bit >= 0; bit--) {
    const bool carry = rest >> 63;
    rest = rest << 1 | (index >> bit & 1);
    if (carry || rest >= size) {
      rest -= size;
      quotient |= (uint64_t)1 << bit;
    }
  }
  remainder = rest;
  return quotient;
}

// Where element `index` of each of N tensors lies. The innermost level has `inner` elements; `strides` are each tensor's in the level
// around it and in the innermost. Where there are more than two levels, `levels` lists all but the innermost from the outermost,
// size and N strides each.
template <int N>
static __device__ __forceinline__ void locate(const uint64_t index, const uint64_t inner, const uint64_t (&strides)[N][2],
                                              const uint64_t* levels, const uint32_t level_count, uint64_t (&offsets)[N]) {
  uint64_t within = 0, rest = index;
  if (inner != 1) rest = divide(index, inner, within);
#pragma unroll
  for (int n = 0; n < N; n++) offsets[n] = within * strides[n][1];
  if (level_count == 0) {
#pragma unroll
    for (int n = 0; n < N; n++) offsets[n] += rest * strides[n][0];
    return;
  }
  for (uint32_t level = level_count; level-- > 0;) {
    const uint64_t* entry = levels + (uint64_t)level * (N + 1);
    uint64_t position;
    rest = divide(rest, entry[0], position);
#pragma unroll
    for (int n = 0; n < N; n++) offsets[n] += position * entry[1 + n];
  }
}
