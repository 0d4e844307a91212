// The scheduler of one launch.
//
// A worker fiber runs threads back to back until one of them has to wait, so a kernel without barriers costs no switch.
// A thread that waits keeps its worker; a fresh worker takes the next thread. All of it happens on the host thread that
// launched, one thread of the grid at a time: the order is a choice, and the same choice for the same seed.
#include "scheduler.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "fault.h"
#include "fiber.h"
#include "options.h"
#include "race_checker.h"

namespace {

constexpr unsigned MAX_THREADS = 1024;
constexpr unsigned WARP = 32;
constexpr int POISON = 0xff;

enum class State { Runnable, AtBarrier, AtWarpOp, Returned };

struct Thread : EmulatedThread {
  State state;
  Fiber* fiber;
  // At a barrier or a warp operation: which, with what, where.
  int operation, line;
  int predicate;
  unsigned mask;
  int source_lane;
  uint64_t value, result;
};

// What a warp's lanes are at, so that each that comes to a warp operation need not look at all the others.
struct Warp {
  unsigned waiting;   // lanes at a warp operation
  unsigned returned;  // lanes that have
  // Of those that wait, unless they differ.
  unsigned mask;
  int operation;
  bool differ;
};

struct Scheduler {
  const Launch* launch = nullptr;
  unsigned block = 0;
  unsigned count = 0;  // threads of a block
  unsigned started = 0, returned = 0, at_barrier = 0;
  std::vector<unsigned> start_order;
  std::vector<Thread*> runnable;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> idle;
  Fiber* running = nullptr;
  unsigned barriers = 0;
  unsigned warp_syncs[MAX_THREADS / WARP] = {};
  Warp warps[MAX_THREADS / WARP] = {};
  std::mt19937 random{0};
  CUresult failure = CUDA_SUCCESS;
};

Scheduler scheduler;
// Fixed, so that the race checker knows reads of `threadIdx` by where they go.
Thread threads[MAX_THREADS];

Thread* current() { return static_cast<Thread*>(cuda_emu_thread); }

const char* barrier_name(int kind) {
  switch (kind) {
    case BARRIER_COUNT: return "__syncthreads_count";
    case BARRIER_AND: return "__syncthreads_and";
    case BARRIER_OR: return "__syncthreads_or";
    default: return "__syncthreads";
  }
}

const char* warp_op_name(int op) {
  switch (op) {
    case WARP_SYNC: return "__syncwarp";
    case WARP_SHUFFLE: return "__shfl_sync";
    case WARP_BALLOT: return "warp vote";
    case WARP_MATCH_ANY: return "__match_any_sync";
    default: return "__reduce_sync";
  }
}

// Lets the running thread wait and others run.
void wait() {
  Thread* self = current();
  scheduler.running->leave();
  cuda_emu_thread = self;
}

[[noreturn]] void worker() {
  for (;;) {
    while (scheduler.started < scheduler.count) {
      Thread* self = &threads[scheduler.start_order[scheduler.started++]];
      self->fiber = scheduler.running;
      cuda_emu_thread = self;
      scheduler.launch->kernel->invoke(scheduler.launch->parameters);
      self->state = State::Returned;
      scheduler.returned++;
      scheduler.warps[self->warp].returned |= 1u << self->lane;
      if (scheduler.at_barrier > 0) {
        // Whoever waits there waits for this thread as well.
        const Thread* waiting = std::find_if(threads, threads + scheduler.count,
                                             [](const Thread& t) { return t.state == State::AtBarrier; });
        kernel_fault(format("returned without reaching %s at line %d, where %s waits",
                            barrier_name(waiting->operation), waiting->line,
                            thread_name(scheduler.block, waiting->linear).c_str()));
      }
    }
    scheduler.idle.push_back(scheduler.running);
    scheduler.running->leave();
  }
}

void run_fiber(Fiber* fiber) {
  scheduler.running = fiber;
  fiber->enter();
}

Fiber* idle_fiber() {
  if (scheduler.idle.empty()) {
    scheduler.fibers.push_back(std::make_unique<Fiber>(worker));
    return scheduler.fibers.back().get();
  }
  Fiber* fiber = scheduler.idle.back();
  scheduler.idle.pop_back();
  return fiber;
}

// The last thread of a block has come to the barrier: all go on.
void release_barrier() {
  int count = 0;
  for (unsigned i = 0; i < scheduler.count; i++) count += threads[i].predicate;
  for (unsigned i = 0; i < scheduler.count; i++) {
    Thread& thread = threads[i];
    switch (thread.operation) {
      case BARRIER_AND: thread.result = count == (int)scheduler.count; break;
      case BARRIER_OR: thread.result = count > 0; break;
      default: thread.result = count;
    }
    thread.state = State::Runnable;
    if (&thread != current()) scheduler.runnable.push_back(&thread);
  }
  scheduler.at_barrier = 0;
  scheduler.barriers++;
}

// The result of a warp operation for one lane, once every lane of the mask has come.
uint64_t warp_result(const Thread* warp, const Thread& self) {
  const unsigned mask = self.mask;
  auto lanes = [mask](auto each) {
    for (unsigned lane = 0; lane < WARP; lane++)
      if (mask >> lane & 1) each(lane);
  };
  auto fold = [&](auto combine) {
    bool first = true;
    uint32_t folded = 0;
    lanes([&](unsigned lane) {
      const uint32_t value = (uint32_t)warp[lane].value;
      folded = first ? value : (uint32_t)combine(folded, value);
      first = false;
    });
    return (uint64_t)folded;
  };
  switch (self.operation) {
    case WARP_SHUFFLE: return warp[self.source_lane].value;
    case WARP_BALLOT: {
      uint64_t votes = 0;
      lanes([&](unsigned lane) { votes |= (warp[lane].value & 1) << lane; });
      return votes;
    }
    case WARP_MATCH_ANY: {
      uint64_t equal = 0;
      lanes([&](unsigned lane) { equal |= (uint64_t)(warp[lane].value == self.value) << lane; });
      return equal;
    }
    case WARP_REDUCE_ADD: return fold([](uint32_t a, uint32_t b) { return a + b; });
    case WARP_REDUCE_AND: return fold([](uint32_t a, uint32_t b) { return a & b; });
    case WARP_REDUCE_OR: return fold([](uint32_t a, uint32_t b) { return a | b; });
    case WARP_REDUCE_XOR: return fold([](uint32_t a, uint32_t b) { return a ^ b; });
    case WARP_REDUCE_MIN_UNSIGNED: return fold([](uint32_t a, uint32_t b) { return std::min(a, b); });
    case WARP_REDUCE_MAX_UNSIGNED: return fold([](uint32_t a, uint32_t b) { return std::max(a, b); });
    case WARP_REDUCE_MIN_SIGNED: return fold([](uint32_t a, uint32_t b) { return std::min((int32_t)a, (int32_t)b); });
    case WARP_REDUCE_MAX_SIGNED: return fold([](uint32_t a, uint32_t b) { return std::max((int32_t)a, (int32_t)b); });
    default: return 0;
  }
}

unsigned pick(unsigned bound) { return scheduler.random() % bound; }

void begin_block(unsigned index) {
  const Launch& launch = *scheduler.launch;
  const EmulatedDim grid = launch.grid, shape = launch.block;
  scheduler.block = index;
  scheduler.started = scheduler.returned = scheduler.at_barrier = scheduler.barriers = 0;
  scheduler.runnable.clear();
  memset(scheduler.warp_syncs, 0, sizeof scheduler.warp_syncs);
  memset(scheduler.warps, 0, sizeof scheduler.warps);
  const EmulatedDim block = {index % grid.x, index / grid.x % grid.y, index / grid.x / grid.y};
  for (unsigned i = 0; i < scheduler.count; i++) {
    Thread& thread = threads[i];
    thread = Thread{};
    thread.thread = {i % shape.x, i / shape.x % shape.y, i / shape.x / shape.y};
    thread.block = block;
    thread.block_dim = shape;
    thread.grid_dim = grid;
    thread.linear = i;
    thread.lane = i % WARP;
    thread.warp = i / WARP;
    scheduler.start_order[i] = options().order == Order::Reverse ? scheduler.count - 1 - i : i;
  }
  if (options().order == Order::Shuffled)
    std::shuffle(scheduler.start_order.begin(), scheduler.start_order.end(), scheduler.random);
  const KernelLibrary& library = *launch.library;
  if (library.shared_begin) memset(library.shared_begin, POISON, library.shared_end - library.shared_begin);
  memset(cuda_emu_dynamic_shared, POISON, launch.dynamic_shared_bytes);
  race_checker_begin_block();
}

// Nobody can go on, and not all have returned: a barrier or a warp operation waits for a thread that waits elsewhere.
CUresult deadlock() {
  std::string message = format("in kernel %s, block %u: deadlock:", scheduler.launch->kernel->name, scheduler.block);
  unsigned named = 0;
  for (unsigned i = 0; i < scheduler.count && named < 4; i++) {
    const Thread& thread = threads[i];
    // One of each kind is enough to see what is wrong.
    const bool like_an_earlier = std::any_of(threads, threads + i, [&](const Thread& other) {
      return other.state == thread.state && other.line == thread.line && other.mask == thread.mask;
    });
    if (like_an_earlier) continue;
    const std::string name = thread_name(scheduler.block, i);
    named++;
    if (thread.state == State::AtBarrier)
      message += format("\n    %s waits at %s, line %d", name.c_str(), barrier_name(thread.operation), thread.line);
    else if (thread.state == State::AtWarpOp)
      message += format("\n    %s waits at %s with mask %#x, line %d", name.c_str(), warp_op_name(thread.operation),
                        thread.mask, thread.line);
    else
      message += format("\n    %s has returned", name.c_str());
  }
  return fault(CUDA_ERROR_LAUNCH_FAILED, message);
}

void run_block(unsigned index) {
  begin_block(index);
  const bool shuffled = options().order == Order::Shuffled;
  while (scheduler.failure == CUDA_SUCCESS && scheduler.returned < scheduler.count) {
    const bool can_start = scheduler.started < scheduler.count;
    auto& runnable = scheduler.runnable;
    if (can_start && (runnable.empty() || !shuffled || pick(2))) {
      run_fiber(idle_fiber());
    } else if (!runnable.empty()) {
      const size_t chosen = shuffled ? pick(runnable.size()) : runnable.size() - 1;
      Thread* thread = runnable[chosen];
      runnable[chosen] = runnable.back();
      runnable.pop_back();
      run_fiber(thread->fiber);
    } else {
      scheduler.failure = deadlock();
    }
  }
}

}  // namespace

extern "C" {
EmulatedThread* cuda_emu_thread;
char* cuda_emu_dynamic_shared;
}

CUresult run(const Launch& launch) {
  const uint64_t blocks = (uint64_t)launch.grid.x * launch.grid.y * launch.grid.z;
  scheduler.launch = &launch;
  scheduler.count = launch.block.x * launch.block.y * launch.block.z;
  scheduler.start_order.resize(scheduler.count);
  scheduler.failure = CUDA_SUCCESS;
  // The size of the launch, not of the device, so that the race checker sees its end. 128 is the device's alignment.
  if (posix_memalign(reinterpret_cast<void**>(&cuda_emu_dynamic_shared), 128, std::max<size_t>(launch.dynamic_shared_bytes, 1)))
    return CUDA_ERROR_OUT_OF_MEMORY;
  race_checker_begin_launch();
  std::vector<unsigned> order;
  if (options().order == Order::Shuffled) {
    // Each launch in its own order, and the same one in every run.
    static uint32_t launches = 0;
    scheduler.random.seed(options().seed * 2654435761u + launches++);
    order.resize(blocks);
    for (uint64_t i = 0; i < blocks; i++) order[i] = i;
    std::shuffle(order.begin(), order.end(), scheduler.random);
  }
  for (uint64_t i = 0; i < blocks && scheduler.failure == CUDA_SUCCESS; i++) {
    switch (options().order) {
      case Order::Forward: run_block(i); break;
      case Order::Reverse: run_block(blocks - 1 - i); break;
      case Order::Shuffled: run_block(order[i]); break;
    }
  }
  if (scheduler.failure != CUDA_SUCCESS) {
    // Their threads stopped in the middle and will never be resumed.
    scheduler.idle.clear();
    scheduler.fibers.clear();
  }
  free(cuda_emu_dynamic_shared);
  cuda_emu_dynamic_shared = nullptr;
  cuda_emu_thread = nullptr;
  scheduler.launch = nullptr;
  return scheduler.failure;
}

const Launch* running_launch() { return scheduler.launch; }
bool on_running_stack(const void* address) { return scheduler.running->stack_contains(address); }
bool is_scheduler_state(const void* address) {
  return (address >= threads && address < threads + MAX_THREADS) || address == &cuda_emu_thread ||
         address == &cuda_emu_dynamic_shared;
}
unsigned barrier_epoch() { return scheduler.barriers; }
unsigned warp_epoch(unsigned warp) { return scheduler.warp_syncs[warp]; }
unsigned running_block() { return scheduler.block; }

std::string thread_name(unsigned block, unsigned thread) {
  const EmulatedDim grid = scheduler.launch->grid, shape = scheduler.launch->block;
  return format("thread (%u,%u,%u) of block (%u,%u,%u)", thread % shape.x, thread / shape.x % shape.y,
                thread / shape.x / shape.y, block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y);
}

void kernel_fault(const std::string& message, CUresult code) {
  const Thread* self = current();
  scheduler.failure = fault(code, format("in kernel %s, %s: %s", scheduler.launch->kernel->name,
                                         thread_name(scheduler.block, self->linear).c_str(), message.c_str()));
  scheduler.running->leave();
  abort();  // a failed launch resumes no fiber
}

extern "C" void cuda_emu_trap(const char* what, int line) { kernel_fault(format("%s at line %d", what, line)); }

extern "C" int cuda_emu_barrier(int kind, int predicate, int line) {
  Thread* self = current();
  self->operation = kind;
  self->predicate = predicate;
  self->line = line;
  if (scheduler.returned > 0)
    kernel_fault(format("%s at line %d is reached although %u threads of the block have returned", barrier_name(kind),
                        line, scheduler.returned));
  if (scheduler.at_barrier > 0) {
    const Thread* other = std::find_if(threads, threads + scheduler.count,
                                       [](const Thread& t) { return t.state == State::AtBarrier; });
    if (other->line != line || other->operation != kind)
      kernel_fault(format("divergent barrier: %s at line %d, while %s waits at %s, line %d", barrier_name(kind), line,
                          thread_name(scheduler.block, other->linear).c_str(), barrier_name(other->operation),
                          other->line));
  }
  self->state = State::AtBarrier;
  if (++scheduler.at_barrier == scheduler.count) release_barrier();
  else wait();
  return (int)self->result;
}

// Whether every lane of the mask waits at the operation of `self`; a fault if one of them never will.
static bool all_have_come(const Thread& self, const Thread* warp, unsigned lanes) {
  const unsigned mask = self.mask;
  const int op = self.operation, line = self.line;
  const char* name = warp_op_name(op);
  bool complete = true;
  for (unsigned lane = 0; lane < lanes; lane++) {
    if (!(mask >> lane & 1)) continue;
    const Thread& other = warp[lane];
    if (other.state == State::Returned)
      kernel_fault(format("%s at line %d: mask %#x names lane %u, which has returned", name, line, mask, lane));
    if (other.state == State::AtWarpOp && other.mask != mask && (other.mask >> self.lane & 1))
      kernel_fault(format("%s at line %d with mask %#x, while lane %u waits at line %d with mask %#x: lanes that wait "
                          "for each other must give the same mask", name, line, mask, lane, other.line, other.mask));
    if (other.state != State::AtWarpOp || other.mask != mask) {
      complete = false;
    } else if (other.operation != op) {
      kernel_fault(format("%s at line %d, while lane %u waits at %s, line %d", name, line, lane,
                          warp_op_name(other.operation), other.line));
    }
  }
  return complete;
}

extern "C" uint64_t cuda_emu_warp(int op, unsigned mask, uint64_t value, int source_lane, int line) {
  Thread* self = current();
  Thread* warp = &threads[self->linear - self->lane];
  const unsigned lanes = std::min(WARP, scheduler.count - warp->linear);
  const unsigned existing = lanes == WARP ? ~0u : (1u << lanes) - 1;
  const char* name = warp_op_name(op);
  if (mask & ~existing)
    kernel_fault(format("%s at line %d: mask %#x names lanes that do not exist; this warp has %u lanes, because the block's "
                        "%u threads are no multiple of 32", name, line, mask, lanes, scheduler.count));
  if (!(mask >> self->lane & 1))
    kernel_fault(format("%s at line %d: lane %u is not in its own mask %#x", name, line, self->lane, mask));
  if (op == WARP_SHUFFLE && (source_lane < 0 || source_lane >= (int)lanes || !(mask >> source_lane & 1)))
    kernel_fault(format("%s at line %d reads lane %d, which mask %#x does not name", name, line, source_lane, mask));
  self->operation = op;
  self->mask = mask;
  self->value = value;
  self->source_lane = source_lane;
  self->line = line;
  self->state = State::AtWarpOp;
  Warp& lanes_of_it = scheduler.warps[self->warp];
  if (lanes_of_it.waiting == 0) {
    lanes_of_it.mask = mask;
    lanes_of_it.operation = op;
    lanes_of_it.differ = false;
  } else if (lanes_of_it.mask != mask || lanes_of_it.operation != op) {
    lanes_of_it.differ = true;
  }
  lanes_of_it.waiting |= 1u << self->lane;
  const bool in_order = !lanes_of_it.differ && !(lanes_of_it.returned & mask);
  const bool complete = in_order ? (lanes_of_it.waiting & mask) == mask : all_have_come(*self, warp, lanes);
  if (!complete) {
    wait();
    return self->result;
  }
  for (unsigned lane = 0; lane < lanes; lane++)
    if (mask >> lane & 1) warp[lane].result = warp_result(warp, warp[lane]);
  lanes_of_it.waiting &= ~mask;
  for (unsigned lane = 0; lane < lanes; lane++) {
    if (!(mask >> lane & 1)) continue;
    warp[lane].state = State::Runnable;
    if (&warp[lane] != self) scheduler.runnable.push_back(&warp[lane]);
  }
  // Only __syncwarp orders memory; a shuffle or vote exchanges values and promises nothing more. A part of a warp that
  // synchronises orders nothing in the checker's eyes, which errs on the side of a report.
  if (op == WARP_SYNC && mask == existing) scheduler.warp_syncs[self->warp]++;
  return self->result;
}
