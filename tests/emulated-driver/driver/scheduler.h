// Running a grid: blocks one after another, a block's threads as fibers, barriers and warp operations between them.
#pragma once

#include <cuda.h>

#include <string>

#include "../device/abi.h"
#include "kernel_library.h"

struct Launch {
  const KernelLibrary* library;
  const EmulatedKernel* kernel;
  void** parameters;
  EmulatedDim grid, block;
  size_t dynamic_shared_bytes;
};

// Runs every thread of the launch to its end, or to the first fault.
CUresult run(const Launch& launch);

// The running launch, or null.
const Launch* running_launch();

// Whether `address` lies on the stack of the running thread.
bool on_running_stack(const void* address);
// Whether `address` is where kernels read `threadIdx` and its like.
bool is_scheduler_state(const void* address);

// Barriers that the running block has passed, and synchronisations of a warp of it.
unsigned barrier_epoch();
unsigned warp_epoch(unsigned warp);

// `thread (x,y,z) of block (x,y,z)` for positions in the running launch.
std::string thread_name(unsigned block, unsigned thread);
// The position of the running block in its grid.
unsigned running_block();

// Reports a fault of the running thread and leaves the launch.
[[noreturn]] void kernel_fault(const std::string& message, CUresult code = CUDA_ERROR_LAUNCH_FAILED);
