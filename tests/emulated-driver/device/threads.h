// Where a thread is, and block-wide barriers.
#pragma once

#include "abi.h"

#define threadIdx (cuda_emu_thread->thread)
#define blockIdx (cuda_emu_thread->block)
#define blockDim (cuda_emu_thread->block_dim)
#define gridDim (cuda_emu_thread->grid_dim)
#define warpSize 32

// The line tells one barrier from another. A return address would not: the optimiser clones call sites.
#define __syncthreads() ((void)cuda_emu_barrier(BARRIER_PLAIN, 0, __LINE__))
#define __syncthreads_count(predicate) cuda_emu_barrier(BARRIER_COUNT, (predicate) != 0, __LINE__)
#define __syncthreads_and(predicate) cuda_emu_barrier(BARRIER_AND, (predicate) != 0, __LINE__)
#define __syncthreads_or(predicate) cuda_emu_barrier(BARRIER_OR, (predicate) != 0, __LINE__)

// Fences order memory that threads share without a barrier, which the race checker refuses anyway.
static inline void __threadfence_block() {}
static inline void __threadfence() {}
static inline void __threadfence_system() {}

#define __trap() cuda_emu_trap("__trap() was reached", __LINE__)
#undef assert
#define assert(condition) ((condition) ? (void)0 : cuda_emu_trap("assertion failed: " #condition, __LINE__))
