// Fibers: stacks to switch between, without the system calls of swapcontext where the processor is known.
#pragma once

#include <cstddef>

class Fiber {
 public:
  // A fiber that will run `entry`, which must never return, on a stack of its own with a guard page below.
  explicit Fiber(void (*entry)());
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Leaves the host's stack for this fiber until it calls `leave`.
  void enter();
  // Leaves this fiber, which is the running one, for the host.
  void leave();

  bool stack_contains(const void* address) const {
    return address >= stack_ && address < stack_ + STACK_BYTES;
  }

 private:
  static constexpr size_t STACK_BYTES = 256 << 10;
  char* stack_;
  void* state_ = nullptr;
  void* host_ = nullptr;
};
