// Class indices of any integer type, checked before they are used; `class_indices.rs` passes them.
#pragma once

#include <stdint.h>

// Types of targets, as the launch numbers them. NO_INDICES are targets of another kind, which the kernel reads by itself.
enum IndexType : uint32_t { U8, U32, I16, I32, I64, NO_INDICES };

// Targets that are no class.
constexpr int64_t IGNORED = -1, INVALID = -2;

struct Indices {
  const void* data;
  uint32_t type;
  uint32_t classes;
  uint32_t has_ignore;
  int64_t ignore;

  // The class at an offset, IGNORED or INVALID; 0 where there are no indices.
  __device__ __forceinline__ int64_t at(const uint64_t offset) const {
    int64_t y = 0;
    switch (type) {
      case U8: y = static_cast<const uint8_t*>(data)[offset]; break;
      case U32: y = static_cast<const uint32_t*>(data)[offset]; break;
      case I16: y = static_cast<const int16_t*>(data)[offset]; break;
      case I32: y = static_cast<const int32_t*>(data)[offset]; break;
      case I64: y = static_cast<const int64_t*>(data)[offset]; break;
      default: return 0;
    }
    if (has_ignore && y == ignore) return IGNORED;
    return y >= 0 && y < (int64_t)classes ? y : INVALID;
  }
};
