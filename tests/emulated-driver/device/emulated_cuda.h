// Makes a .cu compile as host C++: included in front of every kernel source by the build.
//
// NVIDIA's own headers give the vector and half types; `__CUDA_ARCH__` is defined only after them, so that they stay in
// host mode while the kernel sees a device. `__global__` and `__shared__` become marker words that the build rewrites in
// the preprocessed text (emulate/src/source.rs), which is how kernels are found without the help of nvcc.
#pragma once

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <vector_functions.h>
#include <vector_types.h>

#undef __global__
#undef __shared__
#undef __device__
#undef __constant__
#undef __host__
#undef __launch_bounds__
#undef __grid_constant__
#undef __noinline__
// All that a kernel calls is inlined, because g++ tells the race checker of no load that is an argument of a call, as of an
// object (a `__half`) that is passed by value.
#define __global__ CUDA_EMU_MARK_GLOBAL __attribute__((flatten))
#define __noinline__
#define __shared__ CUDA_EMU_MARK_SHARED
#define __device__
#define __host__
#define __constant__ static
#define __launch_bounds__(...)
#define __grid_constant__
#define __builtin_assume(condition) ((void)0)
#define __CUDA_ARCH__ 900
// The build says which release the headers are of.
#define __CUDACC_VER_MAJOR__ CUDA_EMU_VERSION_MAJOR
#define __CUDACC_VER_MINOR__ CUDA_EMU_VERSION_MINOR
// For the rare kernel that needs to know.
#define CUDA_EMULATED 1

#include "abi.h"
#include "registration.h"
#include "threads.h"
#include "warp.h"
#include "atomics.h"
#include "memory_hints.h"
#include "scalar_math.h"
#include "half_math.h"
