// Atomic operations. All threads run on one host thread, so a plain read and write is atomic; the race checker is told,
// because an atomic access races with a plain one and not with another atomic.
#pragma once

#include "abi.h"

#ifdef CUDA_EMU_CHECKED
// The operation is not inlined, so the return address is the kernel's line. What the kernel calls is, so that it is the kernel
// that reads an operand which lies in memory.
#define CUDA_EMU_ATOMIC_NOTE(address) cuda_emu_atomic(address, sizeof(*(address)), __builtin_return_address(0))
#define CUDA_EMU_ATOMIC_FUNCTION __attribute__((noinline, no_sanitize("thread", "undefined"))) static
#else
#define CUDA_EMU_ATOMIC_NOTE(address) ((void)0)
#define CUDA_EMU_ATOMIC_FUNCTION static inline
#endif

#define CUDA_EMU_ATOMIC(name, update)                                                  \
  template <class T, class U>                                                          \
  CUDA_EMU_ATOMIC_FUNCTION T cuda_emu_##name(T* address, U operand) {                  \
    CUDA_EMU_ATOMIC_NOTE(address);                                                     \
    const T old = *address;                                                            \
    const T value = (T)operand;                                                        \
    *address = (update);                                                               \
    return old;                                                                        \
  }                                                                                    \
  template <class T, class U>                                                          \
  static inline T name(T* address, U operand) {                                        \
    return cuda_emu_##name(address, operand);                                          \
  }

CUDA_EMU_ATOMIC(atomicAdd, (T)(old + value))
CUDA_EMU_ATOMIC(atomicSub, (T)(old - value))
CUDA_EMU_ATOMIC(atomicExch, value)
CUDA_EMU_ATOMIC(atomicMax, value > old ? value : old)
CUDA_EMU_ATOMIC(atomicMin, value < old ? value : old)
CUDA_EMU_ATOMIC(atomicAnd, (T)(old & value))
CUDA_EMU_ATOMIC(atomicOr, (T)(old | value))
CUDA_EMU_ATOMIC(atomicXor, (T)(old ^ value))
CUDA_EMU_ATOMIC(atomicInc, old >= value ? (T)0 : (T)(old + 1))
CUDA_EMU_ATOMIC(atomicDec, old == 0 || old > value ? value : (T)(old - 1))

template <class T, class U, class V>
CUDA_EMU_ATOMIC_FUNCTION T cuda_emu_atomicCAS(T* address, U expected, V desired) {
  CUDA_EMU_ATOMIC_NOTE(address);
  const T old = *address;
  if (old == (T)expected) *address = (T)desired;
  return old;
}
template <class T, class U, class V>
static inline T atomicCAS(T* address, U expected, V desired) {
  return cuda_emu_atomicCAS(address, expected, desired);
}
