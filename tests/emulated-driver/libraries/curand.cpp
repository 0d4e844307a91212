// The part of cuRAND that candle calls. The numbers are seeded and well distributed, and not those of a GPU.
#include <cmath>
#include <cstddef>
#include <random>

#include "driver_services.h"

namespace {

enum Status { SUCCESS = 0, LENGTH_NOT_MULTIPLE = 105, LAUNCH_FAILURE = 201 };

// Uniform on (0, 1], as cuRAND's: zero is excluded, one is not.
template <class T>
T uniform(std::mt19937_64& random) {
  return (T)(((random() >> 12) + 1) * 0x1p-52);
}

template <class T>
int fill_uniform(void* generator, const char* call, T* output, size_t count) {
  cuda_emu_log(call);
  if (!cuda_emu_check_range(call, "output", output, count * sizeof(T))) return LAUNCH_FAILURE;
  for (size_t i = 0; i < count; i++) output[i] = uniform<T>(*static_cast<std::mt19937_64*>(generator));
  return SUCCESS;
}

template <class T>
int fill_normal(void* generator, const char* call, T* output, size_t count, T mean, T deviation) {
  cuda_emu_log(call);
  // Normal numbers are made in pairs.
  if (count % 2) return LENGTH_NOT_MULTIPLE;
  if (!cuda_emu_check_range(call, "output", output, count * sizeof(T))) return LAUNCH_FAILURE;
  auto& random = *static_cast<std::mt19937_64*>(generator);
  for (size_t i = 0; i < count; i += 2) {
    const double radius = sqrt(-2 * log(uniform<double>(random))), angle = 2 * M_PI * uniform<double>(random);
    output[i] = (T)(mean + deviation * radius * cos(angle));
    output[i + 1] = (T)(mean + deviation * radius * sin(angle));
  }
  return SUCCESS;
}

}  // namespace

extern "C" {

int curandCreateGenerator(void** generator, int) {
  cuda_emu_log("curandCreateGenerator");
  *generator = new std::mt19937_64(0);
  return SUCCESS;
}

int curandDestroyGenerator(void* generator) {
  cuda_emu_log("curandDestroyGenerator");
  delete static_cast<std::mt19937_64*>(generator);
  return SUCCESS;
}

int curandSetStream(void*, void*) { return SUCCESS; }

int curandSetPseudoRandomGeneratorSeed(void* generator, unsigned long long seed) {
  cuda_emu_log("curandSetPseudoRandomGeneratorSeed");
  static_cast<std::mt19937_64*>(generator)->seed(seed);
  return SUCCESS;
}

int curandGenerateUniform(void* generator, float* output, size_t count) {
  return fill_uniform(generator, "curandGenerateUniform", output, count);
}
int curandGenerateUniformDouble(void* generator, double* output, size_t count) {
  return fill_uniform(generator, "curandGenerateUniformDouble", output, count);
}
int curandGenerateNormal(void* generator, float* output, size_t count, float mean, float deviation) {
  return fill_normal(generator, "curandGenerateNormal", output, count, mean, deviation);
}
int curandGenerateNormalDouble(void* generator, double* output, size_t count, double mean, double deviation) {
  return fill_normal(generator, "curandGenerateNormalDouble", output, count, mean, deviation);
}

}  // extern "C"
