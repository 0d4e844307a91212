// Kernels that are wrong on purpose, each in its own way. A comment `caught: NAME` marks the line that the driver has to name.
//
// All take (input, output, count) with 64 elements of f32 and run as one block of 64 threads unless the launch says
// otherwise (app/src/control_kernels.rs).
#include <cuda_fp16.h>
#include <stdint.h>

#define KERNEL(name) extern "C" __global__ void name(const float* input, float* output, const int32_t count)

KERNEL(right) {
  __shared__ float buffer[64];
  buffer[threadIdx.x] = input[threadIdx.x];
  __syncthreads();
  output[threadIdx.x] = buffer[63 - threadIdx.x];
}

KERNEL(missing_barrier) {
  __shared__ float buffer[64];
  buffer[threadIdx.x] = input[threadIdx.x];
  output[threadIdx.x] = buffer[63 - threadIdx.x];  // caught: missing_barrier
}

// A shuffle exchanges values and orders no memory.
KERNEL(shuffle_is_no_barrier) {
  __shared__ float buffer[64];
  buffer[threadIdx.x] = input[threadIdx.x];
  float other = __shfl_xor_sync(0xffffffffu, input[threadIdx.x], 1);
  output[threadIdx.x] = other + buffer[threadIdx.x ^ 1];  // caught: shuffle_is_no_barrier
}

// A function that takes or gives an object by value reads or writes it where it is called.
KERNEL(missing_barrier_before_a_call) {
  __shared__ __half buffer[64];
  buffer[threadIdx.x] = __float2half(input[threadIdx.x]);
  output[threadIdx.x] = __half2float(buffer[63 - threadIdx.x]);  // caught: missing_barrier_before_a_call
}

KERNEL(argument_past_the_end) {
  const __half* halves = reinterpret_cast<const __half*>(input);
  output[threadIdx.x] = __half2float(halves[2 * count - 63 + threadIdx.x]);  // caught: argument_past_the_end
}

KERNEL(result_past_the_end) {
  __half* halves = reinterpret_cast<__half*>(output);
  halves[2 * count - 63 + threadIdx.x] = __float2half(input[threadIdx.x]);  // caught: result_past_the_end
}

KERNEL(atomic_operand_past_the_end) {
  const __half* halves = reinterpret_cast<const __half*>(input);
  __half* sums = reinterpret_cast<__half*>(output);
  atomicAdd(&sums[threadIdx.x], halves[2 * count - 63 + threadIdx.x]);  // caught: atomic_operand_past_the_end
}

KERNEL(read_past_the_end) {
  float value = 0.0f;
  for (int i = threadIdx.x; i < count + 1; i += blockDim.x)
    value += input[i];  // caught: read_past_the_end
  output[threadIdx.x] = value;
}

KERNEL(hinted_read_past_the_end) {
  output[threadIdx.x] = __ldg(input + threadIdx.x + 1);  // caught: hinted_read_past_the_end
}

KERNEL(write_past_the_end) {
  output[threadIdx.x + 1] = input[threadIdx.x];  // caught: write_past_the_end
}

KERNEL(index_past_a_shared_array) {
  __shared__ float buffer[64];
  __shared__ float neighbour[64];
  neighbour[threadIdx.x] = 0.0f;
  buffer[threadIdx.x + 1] = input[threadIdx.x];  // caught: index_past_a_shared_array
  __syncthreads();
  output[threadIdx.x] = buffer[threadIdx.x] + neighbour[threadIdx.x];
}

static __device__ void store(float* place, float value) {
  *place = value;  // caught: pointer_past_a_shared_array
}

// Without the array's name, its bounds are known to the driver alone.
KERNEL(pointer_past_a_shared_array) {
  __shared__ float buffer[64];
  __shared__ float neighbour[64];
  neighbour[threadIdx.x] = 0.0f;
  store(buffer + threadIdx.x + 1, input[threadIdx.x]);
  __syncthreads();
  output[threadIdx.x] = buffer[threadIdx.x] + neighbour[threadIdx.x];
}

KERNEL(past_dynamic_shared_memory) {
  extern __shared__ float buffer[];
  buffer[threadIdx.x + 1] = input[threadIdx.x];  // caught: past_dynamic_shared_memory
  __syncthreads();
  output[threadIdx.x] = buffer[threadIdx.x];
}

KERNEL(barrier_after_return) {
  if (threadIdx.x == 7) return;
  __syncthreads();  // caught: barrier_after_return
  output[threadIdx.x] = input[threadIdx.x];
}

KERNEL(divergent_barrier) {
  if (threadIdx.x < 32) {
    __syncthreads();  // caught: divergent_barrier
  } else {
    __syncthreads();
  }
  output[threadIdx.x] = input[threadIdx.x];
}

KERNEL(barrier_in_half_of_the_block) {
  if (threadIdx.x < 32) __syncthreads();  // caught: barrier_in_half_of_the_block
  output[threadIdx.x] = input[threadIdx.x];
}

// Launched with 32 threads.
KERNEL(barrier_against_warp_operation) {
  if (threadIdx.x < 16) __syncthreads();
  else output[threadIdx.x] = __shfl_xor_sync(0xffffffffu, input[threadIdx.x], 1);  // caught: barrier_against_warp_operation
}

KERNEL(mask_names_a_returned_lane) {
  if (threadIdx.x % 32 == 0) return;
  output[threadIdx.x] = __shfl_xor_sync(0xffffffffu, input[threadIdx.x], 1);  // caught: mask_names_a_returned_lane
}

KERNEL(mask_without_the_caller) {
  output[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, input[threadIdx.x], 1);  // caught: mask_without_the_caller
}

KERNEL(source_lane_outside_the_mask) {
  if (threadIdx.x % 32 < 16)
    output[threadIdx.x] = __shfl_down_sync(0x0000ffffu, input[threadIdx.x], 8);  // caught: source_lane_outside_the_mask
}

// Launched with 40 threads.
KERNEL(full_mask_in_part_of_a_warp) {
  output[threadIdx.x] = __shfl_xor_sync(0xffffffffu, input[threadIdx.x], 1);  // caught: full_mask_in_part_of_a_warp
}

KERNEL(different_masks) {
  unsigned mask = threadIdx.x % 32 < 8 ? 0xffffffffu : 0xffffff0fu | 0xf0u << (threadIdx.x % 32 == 31);
  output[threadIdx.x] = __shfl_xor_sync(mask, input[threadIdx.x], 1);  // caught: different_masks
}

KERNEL(two_threads_write_one_place) {
  output[threadIdx.x / 2] = input[threadIdx.x];  // caught: two_threads_write_one_place
}

// Launched as two blocks of 32.
KERNEL(two_blocks_write_one_place) {
  output[threadIdx.x] = input[threadIdx.x];  // caught: two_blocks_write_one_place
}

KERNEL(atomic_against_plain) {
  if (threadIdx.x == 0) output[0] = 0.0f;
  atomicAdd(&output[0], input[threadIdx.x]);  // caught: atomic_against_plain
}

KERNEL(misaligned_vector) {
  const float4 value = *reinterpret_cast<const float4*>(input + 1);  // caught: misaligned_vector
  output[threadIdx.x] = value.x;
}

KERNEL(division_by_zero) {
  output[threadIdx.x] = (float)(64 / (int)(threadIdx.x - 3));  // caught: division_by_zero
}

KERNEL(overflowing_offset) {
  const int32_t offset = count * 1000000 * (int)threadIdx.x;  // caught: overflowing_offset
  output[threadIdx.x] = input[offset & 63];
}

KERNEL(shift_too_far) {
  output[threadIdx.x] = (float)(1 << (32 + count - 64));  // caught: shift_too_far
}

KERNEL(trap) {
  if (input[threadIdx.x] != 12345.0f) __trap();  // caught: trap
}

KERNEL(output_not_written) {
  if (threadIdx.x != 5) output[threadIdx.x] = input[threadIdx.x];
}

KERNEL(shared_memory_not_written) {
  __shared__ float buffer[64];
  if (threadIdx.x != 5) buffer[threadIdx.x] = input[threadIdx.x];
  __syncthreads();
  output[threadIdx.x] = buffer[threadIdx.x];
}

// nvcc calls no constructor of what is shared; it says so in warning 20054.
#pragma nv_diag_suppress 20054
struct Constructed {
  float value;
  __device__ Constructed() : value(1.5f) {}
};
KERNEL(shared_object_not_written) {
  __shared__ Constructed buffer[64];
  if (threadIdx.x != 5) buffer[threadIdx.x].value = input[threadIdx.x];
  __syncthreads();
  output[threadIdx.x] = buffer[threadIdx.x].value;
}

// The PTX has one size of the parameter and the host build another, as when one of them is of an older source.
#ifdef CUDA_EMULATED
typedef int64_t Count;
#else
typedef int32_t Count;
#endif
extern "C" __global__ void other_parameters(const float* input, float* output, const Count count) {
  if ((int64_t)threadIdx.x < count) output[threadIdx.x] = input[threadIdx.x];
}
