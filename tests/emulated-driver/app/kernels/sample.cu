// Sample kernels that are right: what the emulator has to run, and every barrier of which is needed.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

static __device__ __forceinline__ float as_float(float x) { return x; }
static __device__ __forceinline__ float as_float(__half x) { return __half2float(x); }
static __device__ __forceinline__ float as_float(__nv_bfloat16 x) { return __bfloat162float(x); }

static __device__ __forceinline__ float warp_max(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

static __device__ __forceinline__ float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// Cross entropy of one row of logits: log(sum exp(x - max)) + max - x[target]. Grid: a block a row. Block: a multiple of 32.
template <class T>
static __device__ void cross_entropy_row(const T* logits, const uint32_t* targets, float* losses, const uint32_t classes) {
  __shared__ float partial[32];
  const unsigned thread = threadIdx.x, lane = thread % 32, warp = thread / 32, warps = blockDim.x / 32;
  const T* row = logits + (size_t)blockIdx.x * classes;

  float maximum = -INFINITY;
  for (uint32_t c = thread; c < classes; c += blockDim.x) maximum = fmaxf(maximum, as_float(row[c]));
  maximum = warp_max(maximum);
  if (lane == 0) partial[warp] = maximum;
  __syncthreads();
  maximum = warp_max(lane < warps ? partial[lane] : -INFINITY);

  float sum = 0.0f;
  for (uint32_t c = thread; c < classes; c += blockDim.x) sum += __expf(as_float(row[c]) - maximum);
  sum = warp_sum(sum);
  __syncthreads();  // every warp has read the maxima
  if (lane == 0) partial[warp] = sum;
  __syncthreads();
  if (warp != 0) return;
  sum = warp_sum(lane < warps ? partial[lane] : 0.0f);
  if (lane == 0) losses[blockIdx.x] = __logf(sum) + maximum - as_float(row[targets[blockIdx.x]]);
}

extern "C" __global__ void cross_entropy_f32(const float* logits, const uint32_t* targets, float* losses, const uint32_t classes) {
  cross_entropy_row(logits, targets, losses, classes);
}
extern "C" __global__ void cross_entropy_f16(const __half* logits, const uint32_t* targets, float* losses, const uint32_t classes) {
  cross_entropy_row(logits, targets, losses, classes);
}
extern "C" __global__ void cross_entropy_bf16(const __nv_bfloat16* logits, const uint32_t* targets, float* losses, const uint32_t classes) {
  cross_entropy_row(logits, targets, losses, classes);
}

// Reverses each 32 elements through dynamic shared memory. Grid: any. Block: a multiple of 32, a float a thread.
extern "C" __global__ void __launch_bounds__(256) reverse_warps(const float* input, float* output, const uint32_t count) {
  extern __shared__ __align__(16) float exchange[];
  const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
  exchange[threadIdx.x] = index < count ? input[index] : 0.0f;
  __syncwarp();
  const unsigned mirrored = (threadIdx.x & ~31u) + 31 - threadIdx.x % 32;
  if (index < count) output[index] = exchange[mirrored];
}

// A type with a constructor that does nothing, as CUDA wants it of what is shared.
struct Boxed {
  float value;
  __device__ Boxed() {}
  __device__ explicit Boxed(float x) : value(x) {}
  __device__ operator float() const { return value; }
};

// Reverses each 64 elements through shared memory of `T`. Grid: as many blocks as there are 64 elements. Block: 64.
template <class T>
static __device__ void reverse_block(const float* input, float* output) {
  __shared__ T exchange[64];
  const uint32_t first = blockIdx.x * 64;
  exchange[threadIdx.x] = T(input[first + threadIdx.x]);
  __syncthreads();
  output[first + threadIdx.x] = float(exchange[63 - threadIdx.x]);
}
extern "C" __global__ void reverse_blocks_f16(const float* input, float* output, const uint32_t) {
  reverse_block<__half>(input, output);
}
extern "C" __global__ void reverse_blocks_bf16(const float* input, float* output, const uint32_t) {
  reverse_block<__nv_bfloat16>(input, output);
}
extern "C" __global__ void reverse_blocks_boxed(const float* input, float* output, const uint32_t) {
  reverse_block<Boxed>(input, output);
}

// What votes, matches and warp reductions give, one result a lane. Grid: one block. Block: one warp.
extern "C" __global__ void warp_operations(const int32_t* input, int32_t* output) {
  const unsigned lane = threadIdx.x;
  const int32_t value = input[lane];
  output[lane] = (int32_t)__ballot_sync(0xffffffffu, value > 0);
  output[32 + lane] = __reduce_add_sync(0xffffffffu, value);
  output[64 + lane] = __reduce_min_sync(0xffffffffu, value);
  output[96 + lane] = (int32_t)__match_any_sync(0xffffffffu, value);
  output[128 + lane] = __shfl_up_sync(0xffffffffu, value, 3);
  output[160 + lane] = __shfl_down_sync(0xffffffffu, value, 3, 8);
  output[192 + lane] = __shfl_sync(0xffffffffu, value, 9, 8);
  output[224 + lane] = __any_sync(0xffffffffu, value == 5) * 2 + __all_sync(0xffffffffu, value < 100);
}

// Four loads and stores at once, and a hint. Grid: any. Block: any. `count` is a multiple of 4.
extern "C" __global__ void scale_by_four(const float* input, float* output, const uint32_t count) {
  const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= count / 4) return;
  float4 value = __ldg(reinterpret_cast<const float4*>(input) + index);
  value.x *= 4.0f;
  value.y *= 4.0f;
  value.z *= 4.0f;
  value.w *= 4.0f;
  __stcs(reinterpret_cast<float4*>(output) + index, value);
}
