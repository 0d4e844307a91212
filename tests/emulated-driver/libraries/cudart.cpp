// The part of the CUDA runtime that candle's static objects (its quantised and mixture-of-experts kernels) touch while a
// program is loaded: they register their code. Launching any of it is not emulated.
#include <cstdio>

namespace {
constexpr int NOT_SUPPORTED = 801;
int handle;

int unsupported(const char* call) {
  fprintf(stderr, "emulated CUDA: %s is not emulated: kernels launched through the runtime API cannot run here\n", call);
  return NOT_SUPPORTED;
}
}  // namespace

extern "C" {
void** __cudaRegisterFatBinary(void*) { return reinterpret_cast<void**>(&handle); }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, void*, void*, void*, void*, int*) {}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
int __cudaGetKernel(void**, const void*) { return unsupported("__cudaGetKernel"); }
int __cudaLaunchKernel() { return unsupported("__cudaLaunchKernel"); }
int __cudaLaunchKernel_ptsz() { return unsupported("__cudaLaunchKernel_ptsz"); }
int __cudaPopCallConfiguration() { return unsupported("__cudaPopCallConfiguration"); }
int __cudaPushCallConfiguration() { return unsupported("__cudaPushCallConfiguration"); }
int cudaLaunchKernel() { return unsupported("cudaLaunchKernel"); }
int cudaLaunchKernelExC() { return unsupported("cudaLaunchKernelExC"); }
int cudaFuncSetAttribute(const void*, int, int) { return unsupported("cudaFuncSetAttribute"); }
int cudaDeviceGetAttribute(int*, int, int) { return unsupported("cudaDeviceGetAttribute"); }
int cudaStreamSynchronize(void*) { return 0; }
int cudaGetLastError() { return 0; }
int cudaPeekAtLastError() { return 0; }
const char* cudaGetErrorString(int) { return "not emulated"; }
int cudaGetDevice(int* device) {
  *device = 0;
  return 0;
}
}
