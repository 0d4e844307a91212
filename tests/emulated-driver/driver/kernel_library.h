// Kernel libraries: the shared objects that hold kernels compiled for the host, one per .cu.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "../device/abi.h"

struct KernelLibrary {
  std::string path;
  // Built with checks: loads, stores and arithmetic are instrumented.
  bool checked = false;
  // Where the object lies in memory: code, constants and its static shared memory.
  uintptr_t begin = 0, end = 0;
  char *shared_begin = nullptr, *shared_end = nullptr;
  // Its variables, as pairs of offsets, with room between them.
  const uint64_t *shared_map = nullptr, *shared_map_end = nullptr;
  std::unordered_map<std::string, const EmulatedKernel*> kernels;

  bool contains(uintptr_t address) const { return address >= begin && address < end; }
};

// Every library: those of CUDA_EMU_KERNELS, then those in `kernels` beside the driver. Loaded at the first call.
const std::vector<KernelLibrary*>& kernel_libraries();

// `file:line (function)` of an address in the code of `library`.
std::string source_line(const KernelLibrary& library, uintptr_t address);
