// The driver's memory functions.
#include "memory.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "fault.h"
#include "options.h"

namespace {

constexpr size_t TOTAL_BYTES = size_t(16) << 30;
constexpr size_t ALIGNMENT = 256;
// Between allocations, so that a small overrun hits none.
constexpr size_t GAP = 1024;
// Every f16, bf16, f32 and f64 made of these bytes is NaN, and every index far out of range.
constexpr int POISON = 0xff;

struct Heap {
  std::map<uintptr_t, std::unique_ptr<Allocation>> live;
  size_t bytes = 0;
  uint64_t count = 0;
};

// Never destroyed: the program may free memory until its very end.
Heap& heap() {
  static auto* heap = new Heap;
  return *heap;
}

CUresult allocate(CUdeviceptr* pointer, size_t bytes) {
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (heap().bytes + bytes > TOTAL_BYTES) return CUDA_ERROR_OUT_OF_MEMORY;
  void* memory = nullptr;
  if (posix_memalign(&memory, ALIGNMENT, bytes + GAP) != 0) return CUDA_ERROR_OUT_OF_MEMORY;
  memset(memory, POISON, bytes + GAP);
  auto allocation = std::make_unique<Allocation>();
  allocation->begin = reinterpret_cast<uintptr_t>(memory);
  allocation->bytes = bytes;
  allocation->number = ++heap().count;
  allocation->shadow.cover(bytes);
  heap().bytes += bytes;
  *pointer = allocation->begin;
  heap().live[allocation->begin] = std::move(allocation);
  return CUDA_SUCCESS;
}

CUresult release(CUdeviceptr pointer) {
  auto found = heap().live.find(pointer);
  if (found == heap().live.end())
    return fault(CUDA_ERROR_INVALID_VALUE, format("free of %#llx, which is no live allocation", pointer));
  heap().bytes -= found->second->bytes;
  // What is read after the free must not look right.
  memset(reinterpret_cast<void*>(pointer), POISON, found->second->bytes);
  free(reinterpret_cast<void*>(pointer));
  heap().live.erase(found);
  return CUDA_SUCCESS;
}

CUresult check_range(const char* call, const char* what, CUdeviceptr pointer, size_t bytes) {
  if (bytes == 0 || find_allocation(pointer, bytes)) return CUDA_SUCCESS;
  return fault(CUDA_ERROR_INVALID_VALUE, format("%s: the %s, %zu bytes at %#llx, does not lie in one live allocation (%s)",
                                                call, what, bytes, pointer, describe_address(pointer)));
}

}  // namespace

Allocation* find_allocation(uintptr_t address, size_t size) {
  auto after = heap().live.upper_bound(address);
  if (after == heap().live.begin()) return nullptr;
  Allocation* candidate = std::prev(after)->second.get();
  return candidate->contains(address, size) ? candidate : nullptr;
}

const char* describe_address(uintptr_t address) {
  static thread_local std::string text;
  auto after = heap().live.upper_bound(address);
  if (after == heap().live.begin()) return "far from every allocation";
  const Allocation& before = *std::prev(after)->second;
  const uintptr_t end = before.begin + before.bytes;
  if (address >= end + (1 << 20)) return "far from every allocation";
  text = address >= end ? format("%zu bytes past the end of an allocation of %zu bytes", address - end, before.bytes)
                        : format("at byte %zu of an allocation of %zu bytes", address - before.begin, before.bytes);
  return text.c_str();
}

void check_leaks() {
  DriverLock lock;
  log_call("end of the process: %zu live allocations, %zu bytes", heap().live.size(), heap().bytes);
  if (heap().live.empty() || options().leaks_allowed) return;
  std::string sizes;
  size_t named = 0;
  for (auto& [begin, allocation] : heap().live) {
    if (named++ == 8) {
      sizes += ", ...";
      break;
    }
    sizes += format("%s%zu bytes (allocation %zu)", named == 1 ? "" : ", ", allocation->bytes, (size_t)allocation->number);
  }
  fprintf(stderr, "emulated CUDA: fault: leak: %zu allocations were never freed: %s\n", heap().live.size(), sizes.c_str());
  fflush(nullptr);
  _exit(FAULT_STATUS);
}

// For the emulated cuBLAS and cuRAND: whether an operand lies in device memory.
extern "C" int cuda_emu_check_range(const char* call, const char* what, const void* pointer, size_t bytes) {
  DriverLock lock;
  return check_range(call, what, reinterpret_cast<CUdeviceptr>(pointer), bytes) == CUDA_SUCCESS;
}

extern "C" {

CUresult cuMemAllocAsync(CUdeviceptr* pointer, size_t bytes, CUstream) {
  DriverLock lock;
  log_call("cuMemAllocAsync(%zu)", bytes);
  // Memory pools hand out a null pointer for no bytes, where cuMemAlloc is documented to refuse; candle's strides of a
  // scalar are such.
  if (bytes == 0) {
    *pointer = 0;
    return CUDA_SUCCESS;
  }
  return allocate(pointer, bytes);
}

CUresult cuMemAlloc_v2(CUdeviceptr* pointer, size_t bytes) {
  DriverLock lock;
  log_call("cuMemAlloc_v2(%zu)", bytes);
  return allocate(pointer, bytes);
}

CUresult cuMemFreeAsync(CUdeviceptr pointer, CUstream) {
  DriverLock lock;
  log_call("cuMemFreeAsync(%#llx)", pointer);
  if (pointer == 0) return CUDA_SUCCESS;
  return release(pointer);
}

CUresult cuMemFree_v2(CUdeviceptr pointer) {
  DriverLock lock;
  log_call("cuMemFree_v2(%#llx)", pointer);
  return release(pointer);
}

CUresult cuMemGetInfo_v2(size_t* free_bytes, size_t* total_bytes) {
  DriverLock lock;
  *total_bytes = TOTAL_BYTES;
  *free_bytes = TOTAL_BYTES - heap().bytes;
  return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream) {
  DriverLock lock;
  log_call("cuMemcpyHtoDAsync_v2(%zu)", bytes);
  if (CUresult wrong = check_range("cuMemcpyHtoDAsync_v2", "destination", to, bytes)) return wrong;
  memcpy(reinterpret_cast<void*>(to), from, bytes);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream) {
  DriverLock lock;
  log_call("cuMemcpyDtoHAsync_v2(%zu)", bytes);
  if (CUresult wrong = check_range("cuMemcpyDtoHAsync_v2", "source", from, bytes)) return wrong;
  memcpy(to, reinterpret_cast<void*>(from), bytes);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream) {
  DriverLock lock;
  log_call("cuMemcpyDtoDAsync_v2(%zu)", bytes);
  if (CUresult wrong = check_range("cuMemcpyDtoDAsync_v2", "destination", to, bytes)) return wrong;
  if (CUresult wrong = check_range("cuMemcpyDtoDAsync_v2", "source", from, bytes)) return wrong;
  memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
  return CUDA_SUCCESS;
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream) {
  DriverLock lock;
  log_call("cuMemsetD8Async(%u, %zu)", value, bytes);
  if (CUresult wrong = check_range("cuMemsetD8Async", "destination", to, bytes)) return wrong;
  memset(reinterpret_cast<void*>(to), value, bytes);
  return CUDA_SUCCESS;
}

}  // extern "C"
