// Tells the driver which kernels a library has, while the library is loaded.
//
// The build appends one `Registration` per kernel to the preprocessed source. Parameter types come from the kernel's own
// signature, so `kernelParams` is read exactly as the kernel declares it.
#pragma once

#include <type_traits>
#include <utility>

#include "abi.h"

namespace cuda_emu {

template <auto Kernel>
struct Registration;

template <class... Parameter, void (*Kernel)(Parameter...)>
struct Registration<Kernel> {
  template <size_t... I>
  __attribute__((no_sanitize("thread", "undefined"))) static void call(void** parameters, std::index_sequence<I...>) {
    Kernel(*static_cast<std::remove_cv_t<Parameter>*>(parameters[I])...);
  }
  static void invoke(void** parameters) { call(parameters, std::index_sequence_for<Parameter...>{}); }

  // One more than there are, since an array cannot be empty.
  static constexpr size_t SIZES[] = {sizeof(Parameter)..., 0};
  static constexpr bool IS_POINTER[] = {std::is_pointer<Parameter>::value..., false};

  EmulatedKernel kernel;
  explicit Registration(const char* name) : kernel{name, invoke, sizeof...(Parameter), SIZES, IS_POINTER} {
    cuda_emu_register(&kernel);
  }
};

}  // namespace cuda_emu

// What the build's linker script defines: both ends of static shared memory, of a list that says where each of its
// variables begins and ends in it, and of the flags that say whether each has been constructed.
extern "C" {
extern char __start_cuda_emu_shared[] __attribute__((visibility("hidden")));
extern char __stop_cuda_emu_shared[] __attribute__((visibility("hidden")));
extern const uint64_t __start_cuda_emu_shared_map[] __attribute__((visibility("hidden")));
extern const uint64_t __stop_cuda_emu_shared_map[] __attribute__((visibility("hidden")));
extern char __start_cuda_emu_guards[] __attribute__((visibility("hidden")));
extern char __stop_cuda_emu_guards[] __attribute__((visibility("hidden")));
}
static struct CudaEmuSharedSection {
  CudaEmuSharedSection() {
    cuda_emu_shared_section(__start_cuda_emu_shared, __stop_cuda_emu_shared, __start_cuda_emu_shared_map,
                            __stop_cuda_emu_shared_map);
    cuda_emu_shared_guards(__start_cuda_emu_guards, __stop_cuda_emu_guards);
  }
} cuda_emu_shared_section_registration;
