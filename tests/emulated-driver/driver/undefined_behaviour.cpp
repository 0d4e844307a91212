// What g++'s `-fsanitize=bounds,...` calls in checked kernels: arithmetic and indexing that C++ leaves undefined.
//
// The structures are part of the compiler's interface (GCC's and Clang's ubsan).
#include <cstdint>
#include <string>

#include "fault.h"
#include "scheduler.h"

namespace {

struct Location {
  const char* file;
  uint32_t line, column;
};

[[noreturn]] void report(const Location* at, const std::string& what) {
  kernel_fault(format("%s at %s:%u", what.c_str(), at->file ? at->file : "?", at->line));
}

}  // namespace

// Kernels run on fibers; nothing else is compiled with these checks.
#define HANDLER extern "C" [[noreturn]] void

HANDLER __ubsan_handle_out_of_bounds(const Location* at, uintptr_t index) {
  report(at, format("index %zd is out of the array's bounds", (ssize_t)index));
}
HANDLER __ubsan_handle_type_mismatch_v1(const Location* at, uintptr_t pointer) {
  // After the location: the type, and the logarithm of its alignment.
  struct Data {
    Location at;
    const void* type;
    unsigned char log_alignment, kind;
  };
  const auto* data = reinterpret_cast<const Data*>(at);
  if (pointer == 0) report(at, "access through a null pointer");
  report(at, format("misaligned access: address %#zx is no multiple of %u", (size_t)pointer, 1u << data->log_alignment));
}
HANDLER __ubsan_handle_divrem_overflow(const Location* at, uintptr_t, uintptr_t) { report(at, "integer division by zero, or overflow"); }
HANDLER __ubsan_handle_add_overflow(const Location* at, uintptr_t, uintptr_t) { report(at, "signed overflow of an addition"); }
HANDLER __ubsan_handle_sub_overflow(const Location* at, uintptr_t, uintptr_t) { report(at, "signed overflow of a subtraction"); }
HANDLER __ubsan_handle_mul_overflow(const Location* at, uintptr_t, uintptr_t) { report(at, "signed overflow of a multiplication"); }
HANDLER __ubsan_handle_negate_overflow(const Location* at, uintptr_t) { report(at, "signed overflow of a negation"); }
HANDLER __ubsan_handle_shift_out_of_bounds(const Location* at, uintptr_t, uintptr_t) { report(at, "shift by more than the type is wide, or negative"); }
