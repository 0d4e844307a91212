// Data races and stray accesses, found at the access itself whatever values come out.
//
// Checked kernels are compiled with `-fsanitize=thread`, which puts a call before every load and store; linked against
// the hooks below instead of the sanitizer's own runtime, they report to this file. Two accesses of which one writes
// are ordered if they are in different launches, or by the same thread, or in one block with a `__syncthreads` between
// them, or in one warp with a `__syncwarp` between them. Anything else is a race, also where the order that happened to
// be run gave the right result. It is exact: no sampling, and no dependence on the order of threads.
#include "race_checker.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "fault.h"
#include "kernel_library.h"
#include "memory.h"
#include "scheduler.h"

namespace {

enum class Kind { Read, Write, Atomic };

// Stamps tell cells of this launch (device memory) or this block (shared memory) from older ones.
uint32_t launch_stamp = 0, block_stamp = 0;
Shadow static_shared_shadow, dynamic_shared_shadow;
// Most accesses go to the same few allocations as the ones before.
Allocation* recent[2] = {};

const char* kind_name(Kind kind) {
  switch (kind) {
    case Kind::Read: return "read";
    case Kind::Write: return "write";
    default: return "atomic access";
  }
}

// Whether `earlier` and `now` could have come in the other order.
bool unordered(const Access& earlier, const Access& now) {
  if (!earlier.present) return false;
  if (earlier.block != now.block) return true;
  if (earlier.thread == now.thread || earlier.barrier_epoch != now.barrier_epoch) return false;
  return earlier.warp() != now.warp() || earlier.warp_epoch == now.warp_epoch;
}

// How much `other` adds to what a later access learns from `now`: another block tells most.
int distance(const Access& other, const Access& now) {
  if (!other.present) return 0;
  if (other.block != now.block) return 3;
  if (other.barrier_epoch != now.barrier_epoch || other.thread == now.thread) return 0;
  return other.warp() != now.warp() ? 2 : 1;
}

void remember(Accesses& accesses, const Access& now) {
  const bool same_thread = accesses.last.thread == now.thread && accesses.last.block == now.block;
  if (!same_thread && distance(accesses.last, now) >= distance(accesses.other, now)) accesses.other = accesses.last;
  accesses.last = now;
}

[[noreturn]] void report_race(const char* memory, Kind kind, size_t size, const Access& now, Kind earlier_kind,
                              const Access& earlier) {
  const KernelLibrary& library = *running_launch()->library;
  const std::string here = source_line(library, library.begin + now.where - 1);
  const std::string there = source_line(library, library.begin + earlier.where - 1);
  kernel_fault(format("data race on %s memory: %s of %zu bytes at %s\n    unordered with the %s by %s at %s", memory,
                      kind_name(kind), size, here.c_str(), kind_name(earlier_kind),
                      thread_name(earlier.block, earlier.thread).c_str(), there.c_str()));
}

void check_cell(ShadowCell& cell, uint32_t stamp, const char* memory, Kind kind, size_t size, const Access& now) {
  if (cell.stamp != stamp) {
    cell = ShadowCell{};
    cell.stamp = stamp;
  }
  auto against = [&](const Access& earlier, Kind earlier_kind) {
    if (unordered(earlier, now)) report_race(memory, kind, size, now, earlier_kind, earlier);
  };
  against(cell.write, Kind::Write);
  if (kind != Kind::Read) {
    against(cell.reads.last, Kind::Read);
    against(cell.reads.other, Kind::Read);
  }
  if (kind != Kind::Atomic) {
    against(cell.atomics.last, Kind::Atomic);
    against(cell.atomics.other, Kind::Atomic);
  }
  switch (kind) {
    case Kind::Read: remember(cell.reads, now); break;
    case Kind::Atomic: remember(cell.atomics, now); break;
    case Kind::Write: cell.write = now; break;
  }
}

[[noreturn]] void report_stray(size_t size, Kind kind, uintptr_t from, const char* where) {
  const KernelLibrary& library = *running_launch()->library;
  kernel_fault(format("stray %s of %zu bytes at %s: %s", kind_name(kind), size, source_line(library, from - 1).c_str(), where),
               CUDA_ERROR_ILLEGAL_ADDRESS);
}

void check_shared_variable(const KernelLibrary& library, size_t offset, size_t size, Kind kind, uintptr_t from) {
  // The last of the variables that begin at or before the offset.
  const uint64_t *variable = library.shared_map, *next = variable + 2;
  for (; next < library.shared_map_end && next[0] <= offset; next += 2) variable = next;
  if (offset + size <= variable[1]) return;
  report_stray(size, kind, from, format("%zu bytes past the end of a shared variable of %zu bytes",
                                        offset - (size_t)variable[1], (size_t)(variable[1] - variable[0])).c_str());
}

Allocation* allocation_of(uintptr_t address, size_t size) {
  if (recent[0] && recent[0]->contains(address, size)) return recent[0];
  if (recent[1] && recent[1]->contains(address, size)) {
    std::swap(recent[0], recent[1]);
    return recent[0];
  }
  Allocation* found = find_allocation(address, size);
  if (found) {
    recent[1] = recent[0];
    recent[0] = found;
  }
  return found;
}

void check(const void* pointer, size_t size, Kind kind, void* return_address) {
  const EmulatedThread* self = cuda_emu_thread;
  if (!self || size == 0) return;
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  // Local variables, and `threadIdx` and its like.
  if (on_running_stack(pointer) || is_scheduler_state(pointer)) return;
  const Launch& launch = *running_launch();
  const KernelLibrary& library = *launch.library;
  const uintptr_t from = reinterpret_cast<uintptr_t>(return_address);

  Shadow* shadow;
  size_t offset;
  uint32_t stamp;
  const char* memory;
  const uintptr_t dynamic = reinterpret_cast<uintptr_t>(cuda_emu_dynamic_shared);
  const uintptr_t fixed = reinterpret_cast<uintptr_t>(library.shared_begin);
  if (address >= fixed && address + size <= reinterpret_cast<uintptr_t>(library.shared_end)) {
    shadow = &static_shared_shadow;
    offset = address - fixed;
    check_shared_variable(library, offset, size, kind, from);
    stamp = block_stamp;
    memory = "shared";
  } else if (address - dynamic < launch.dynamic_shared_bytes + 128) {
    // A little past the end is an overrun of the kernel's, not a stray pointer.
    offset = address - dynamic;
    if (offset + size > launch.dynamic_shared_bytes)
      report_stray(size, kind, from,
                   format("byte %zu of dynamic shared memory, of which the launch asked for %zu bytes", offset,
                          launch.dynamic_shared_bytes).c_str());
    shadow = &dynamic_shared_shadow;
    stamp = block_stamp;
    memory = "shared";
  } else if (Allocation* allocation = allocation_of(address, size)) {
    shadow = &allocation->shadow;
    offset = address - allocation->begin;
    stamp = launch_stamp;
    memory = "device";
  } else if (library.contains(address)) {
    if (kind == Kind::Read) return;  // constants
    report_stray(size, kind, from, "a static variable; shared memory has to be declared within a function");
  } else {
    report_stray(size, kind, from, describe_address(address));
  }
  Access now{};
  now.block = running_block();
  now.thread = self->linear;
  now.present = 1;
  now.warp_epoch = warp_epoch(self->warp);
  now.barrier_epoch = barrier_epoch();
  now.where = from - library.begin;
  size_t count;
  ShadowCell* cells = shadow->cells(offset, size, &count);
  for (size_t i = 0; i < count; i++) check_cell(cells[i], stamp, memory, kind, size, now);
}

}  // namespace

void race_checker_begin_launch() {
  launch_stamp++;
  recent[0] = recent[1] = nullptr;
  const Launch& launch = *running_launch();
  dynamic_shared_shadow.cover(launch.dynamic_shared_bytes);
  static_shared_shadow.cover(launch.library->shared_end - launch.library->shared_begin);
}

void race_checker_begin_block() { block_stamp++; }

extern "C" {

void cuda_emu_atomic(const void* address, size_t size, void* where) { check(address, size, Kind::Atomic, where); }

// What `-fsanitize=thread` calls.
#define HOOK(name, size, kind) \
  void name(void* address) { check(address, size, Kind::kind, __builtin_return_address(0)); }
#define HOOKS(size)                                        \
  HOOK(__tsan_read##size, size, Read)                      \
  HOOK(__tsan_write##size, size, Write)                    \
  HOOK(__tsan_unaligned_read##size, size, Read)            \
  HOOK(__tsan_unaligned_write##size, size, Write)          \
  HOOK(__tsan_volatile_read##size, size, Read)             \
  HOOK(__tsan_volatile_write##size, size, Write)           \
  HOOK(__tsan_unaligned_volatile_read##size, size, Read)   \
  HOOK(__tsan_unaligned_volatile_write##size, size, Write)
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(void* address, size_t size) { check(address, size, Kind::Read, __builtin_return_address(0)); }
void __tsan_write_range(void* address, size_t size) { check(address, size, Kind::Write, __builtin_return_address(0)); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_read(void**) {}
void __tsan_vptr_update(void**, void*) {}

}  // extern "C"
