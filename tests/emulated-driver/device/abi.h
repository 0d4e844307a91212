// The interface between kernels compiled for the host (one shared object per .cu) and the emulated driver.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct EmulatedDim {
  unsigned x, y, z;
};

// What a kernel sees of the thread that it runs as.
struct EmulatedThread {
  EmulatedDim thread, block, block_dim, grid_dim;
  unsigned linear;  // position in the block, x fastest
  unsigned lane;    // linear % 32
  unsigned warp;    // linear / 32
};

enum EmulatedBarrier : int { BARRIER_PLAIN, BARRIER_COUNT, BARRIER_AND, BARRIER_OR };

enum EmulatedWarpOp : int {
  WARP_SYNC,
  WARP_SHUFFLE,
  WARP_BALLOT,
  WARP_MATCH_ANY,
  WARP_REDUCE_ADD,
  WARP_REDUCE_MIN_SIGNED,
  WARP_REDUCE_MAX_SIGNED,
  WARP_REDUCE_MIN_UNSIGNED,
  WARP_REDUCE_MAX_UNSIGNED,
  WARP_REDUCE_AND,
  WARP_REDUCE_OR,
  WARP_REDUCE_XOR,
};

// One kernel of a library: how to call it with `void** kernelParams`, and its parameters as its C++ types say.
struct EmulatedKernel {
  const char* name;
  void (*invoke)(void** parameters);
  size_t parameter_count;
  const size_t* sizes;
  const bool* is_pointer;
};

extern "C" {
// The running thread. Every thread of a launch runs on one host thread, one at a time.
extern EmulatedThread* cuda_emu_thread;
// The launch's dynamic shared memory.
extern char* cuda_emu_dynamic_shared;

int cuda_emu_barrier(int kind, int predicate, int line);
uint64_t cuda_emu_warp(int op, unsigned mask, uint64_t value, int source_lane, int line);
// Tells the race checker of an atomic access at `where` in the code; called in checked builds only.
void cuda_emu_atomic(const void* address, size_t size, void* where);
// Stops the kernel with a message.
[[noreturn]] void cuda_emu_trap(const char* what, int line);

// Called while a library is loaded: its kernels, and where its static shared memory lies. The map is pairs of offsets, from
// the begin of each variable to its end, in ascending order.
void cuda_emu_register(const EmulatedKernel* kernel);
void cuda_emu_shared_section(char* begin, char* end, const uint64_t* map_begin, const uint64_t* map_end);
// Called while a library is loaded: the flags by which the host's code knows which shared variables have been constructed.
void cuda_emu_shared_guards(char* begin, char* end);
}
