// Warp shuffles, votes, matches and reductions.
#pragma once

#include <cstring>

#include "abi.h"

namespace cuda_emu {

template <class T>
inline T shuffle(int line, unsigned mask, T value, int source_lane) {
  static_assert(sizeof(T) <= 8, "a shuffle moves at most eight bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = cuda_emu_warp(WARP_SHUFFLE, mask, bits, source_lane, line);
  memcpy(&value, &bits, sizeof(T));
  return value;
}

// Lanes exchange within groups of `width`, a power of two; a source outside the group is the lane itself.
template <class T>
inline T shuffle_index(int line, unsigned mask, T value, int index, int width = 32) {
  const int lane = (int)cuda_emu_thread->lane;
  return shuffle(line, mask, value, (lane & ~(width - 1)) + (index & (width - 1)));
}

template <class T>
inline T shuffle_xor(int line, unsigned mask, T value, int lane_mask, int width = 32) {
  const int lane = (int)cuda_emu_thread->lane;
  const int source = lane ^ lane_mask;
  // A source in a later group is out of reach, one in an earlier group is allowed.
  return shuffle(line, mask, value, source > (lane | (width - 1)) ? lane : source);
}

template <class T>
inline T shuffle_down(int line, unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = (int)cuda_emu_thread->lane;
  const int source = lane + (int)delta;
  return shuffle(line, mask, value, source > (lane | (width - 1)) ? lane : source);
}

template <class T>
inline T shuffle_up(int line, unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = (int)cuda_emu_thread->lane;
  const int source = lane - (int)delta;
  return shuffle(line, mask, value, source < (lane & ~(width - 1)) ? lane : source);
}

inline void sync_warp(int line, unsigned mask = 0xffffffffu) { cuda_emu_warp(WARP_SYNC, mask, 0, 0, line); }

inline unsigned ballot(int line, unsigned mask, bool predicate) {
  return (unsigned)cuda_emu_warp(WARP_BALLOT, mask, predicate, 0, line);
}

template <class T>
inline unsigned match(int op, int line, unsigned mask, T value) {
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  return (unsigned)cuda_emu_warp(op, mask, bits, 0, line);
}


// Reductions exist for 32-bit integers; the sign decides the order.
template <class T>
inline T reduce(int op, int line, unsigned mask, T value) {
  static_assert(sizeof(T) == 4 && std::is_integral<T>::value, "__reduce_*_sync takes 32-bit integers");
  return (T)cuda_emu_warp(op, mask, (uint32_t)value, 0, line);
}
template <class T>
constexpr int reduce_min_op() {
  return std::is_signed<T>::value ? WARP_REDUCE_MIN_SIGNED : WARP_REDUCE_MIN_UNSIGNED;
}
template <class T>
constexpr int reduce_max_op() {
  return std::is_signed<T>::value ? WARP_REDUCE_MAX_SIGNED : WARP_REDUCE_MAX_UNSIGNED;
}

}  // namespace cuda_emu

#define __syncwarp(...) cuda_emu::sync_warp(__LINE__, ##__VA_ARGS__)
#define __shfl_sync(...) cuda_emu::shuffle_index(__LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) cuda_emu::shuffle_xor(__LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) cuda_emu::shuffle_down(__LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) cuda_emu::shuffle_up(__LINE__, __VA_ARGS__)
#define __ballot_sync(mask, predicate) cuda_emu::ballot(__LINE__, mask, (predicate) != 0)
#define __any_sync(mask, predicate) ((int)(cuda_emu::ballot(__LINE__, mask, (predicate) != 0) != 0))
#define __all_sync(mask, predicate) ((int)(cuda_emu::ballot(__LINE__, mask, (predicate) == 0) == 0))
#define __match_any_sync(mask, value) cuda_emu::match(WARP_MATCH_ANY, __LINE__, mask, value)
#define __reduce_add_sync(mask, value) cuda_emu::reduce(WARP_REDUCE_ADD, __LINE__, mask, value)
#define __reduce_min_sync(mask, value) cuda_emu::reduce(cuda_emu::reduce_min_op<decltype(value)>(), __LINE__, mask, value)
#define __reduce_max_sync(mask, value) cuda_emu::reduce(cuda_emu::reduce_max_op<decltype(value)>(), __LINE__, mask, value)
#define __reduce_and_sync(mask, value) cuda_emu::reduce(WARP_REDUCE_AND, __LINE__, mask, value)
#define __reduce_or_sync(mask, value) cuda_emu::reduce(WARP_REDUCE_OR, __LINE__, mask, value)
#define __reduce_xor_sync(mask, value) cuda_emu::reduce(WARP_REDUCE_XOR, __LINE__, mask, value)
