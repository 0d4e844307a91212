// Device memory: allocations in host memory, filled with NaN, with room between them.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>

#include "shadow.h"

struct Allocation {
  uintptr_t begin;
  size_t bytes;
  // The how-manieth allocation of the process it is.
  uint64_t number;
  // What the race checker remembers of it.
  Shadow shadow;

  bool contains(uintptr_t address, size_t size) const {
    return address >= begin && address - begin + size <= bytes;
  }
};

// The allocation that holds `size` bytes at `address` whole, or null.
Allocation* find_allocation(uintptr_t address, size_t size);

// Where `address` lies in relation to the nearest allocation, for messages.
const char* describe_address(uintptr_t address);

// Reports what is still allocated. Called when the process ends.
void check_leaks();
