// Loads and stores with cache hints, which on the host are plain loads and stores.
#pragma once

#define CUDA_EMU_LOAD(name)              \
  template <class T>                     \
  static inline T name(const T* address) { \
    return *address;                     \
  }
#define CUDA_EMU_STORE(name)                                                     \
  template <class T, class U>                                                    \
  static inline void name(T* address, const U& value) {                          \
    *address = value;                                                            \
  }

CUDA_EMU_LOAD(__ldg)
CUDA_EMU_LOAD(__ldca)
CUDA_EMU_LOAD(__ldcg)
CUDA_EMU_LOAD(__ldcs)
CUDA_EMU_LOAD(__ldcv)
CUDA_EMU_LOAD(__ldlu)
CUDA_EMU_STORE(__stcg)
CUDA_EMU_STORE(__stcs)
CUDA_EMU_STORE(__stwb)
CUDA_EMU_STORE(__stwt)
