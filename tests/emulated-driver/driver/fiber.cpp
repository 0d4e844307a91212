// Switching stacks: fifteen instructions on x86-64, ucontext elsewhere.
#include "fiber.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

namespace {
constexpr size_t GUARD_BYTES = 4096;

char* map_stack(size_t bytes) {
  void* stack = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack == MAP_FAILED) {
    perror("emulated CUDA: cannot map a thread's stack");
    abort();
  }
  mprotect(stack, GUARD_BYTES, PROT_NONE);
  return static_cast<char*>(stack);
}
}  // namespace

// The macro is for testing the other form on this processor.
#if defined(__x86_64__) && !defined(CUDA_EMU_UCONTEXT)

// Saves the callee-saved registers and the stack pointer at *save, then continues where `to` was saved.
extern "C" void cuda_emu_switch(void** save, void* to);
asm(R"(
    .text
    .globl cuda_emu_switch
    .type cuda_emu_switch,@function
cuda_emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp,(%rdi)
    movq %rsi,%rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size cuda_emu_switch,.-cuda_emu_switch
)");

Fiber::Fiber(void (*entry)()) : stack_(map_stack(STACK_BYTES)) {
  void** top = reinterpret_cast<void**>(stack_ + STACK_BYTES);
  // A function finds its stack at 16n + 8, as after a call: the return address below counts, and no one returns to it.
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int saved_register = 0; saved_register < 6; saved_register++) *--top = nullptr;
  state_ = top;
}

Fiber::~Fiber() { munmap(stack_, STACK_BYTES); }
void Fiber::enter() { cuda_emu_switch(&host_, state_); }
void Fiber::leave() { cuda_emu_switch(&state_, host_); }

#else

#include <ucontext.h>

Fiber::Fiber(void (*entry)()) : stack_(map_stack(STACK_BYTES)) {
  auto* context = new ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = stack_ + GUARD_BYTES;
  context->uc_stack.ss_size = STACK_BYTES - GUARD_BYTES;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  state_ = context;
  host_ = new ucontext_t;
}

Fiber::~Fiber() {
  delete static_cast<ucontext_t*>(state_);
  delete static_cast<ucontext_t*>(host_);
  munmap(stack_, STACK_BYTES);
}
void Fiber::enter() { swapcontext(static_cast<ucontext_t*>(host_), static_cast<ucontext_t*>(state_)); }
void Fiber::leave() { swapcontext(static_cast<ucontext_t*>(state_), static_cast<ucontext_t*>(host_)); }

#endif
