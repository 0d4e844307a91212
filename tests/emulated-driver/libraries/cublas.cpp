// The part of cuBLAS that candle calls: a handle, and one strided batched matrix product in every element type.
//
// Written against cuBLAS's documented interface without its headers, which weigh 0.4 GB with the library around them.
// Sums are kept in f64 and rounded once, so results are at least as exact as a GPU's.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <library_types.h>

#include <cstdio>
#include <vector>

#include "driver_services.h"

namespace {

enum Status { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum Operation { PLAIN = 0, TRANSPOSED = 1, CONJUGATED = 2 };
// The compute types whose scalars are not f32.
enum Compute { COMPUTE_16F = 64, COMPUTE_16F_PEDANTIC = 65, COMPUTE_64F = 70, COMPUTE_64F_PEDANTIC = 71 };

size_t element_size(cudaDataType type) {
  switch (type) {
    case CUDA_R_64F: return 8;
    case CUDA_R_32F: return 4;
    case CUDA_R_16F:
    case CUDA_R_16BF: return 2;
    default: return 0;
  }
}

double load(const void* from, cudaDataType type, size_t index) {
  switch (type) {
    case CUDA_R_64F: return static_cast<const double*>(from)[index];
    case CUDA_R_32F: return static_cast<const float*>(from)[index];
    case CUDA_R_16F: return __half2float(static_cast<const __half*>(from)[index]);
    default: return __bfloat162float(static_cast<const __nv_bfloat16*>(from)[index]);
  }
}

void store(void* to, cudaDataType type, size_t index, double value) {
  switch (type) {
    case CUDA_R_64F: static_cast<double*>(to)[index] = value; break;
    case CUDA_R_32F: static_cast<float*>(to)[index] = (float)value; break;
    case CUDA_R_16F: static_cast<__half*>(to)[index] = __double2half(value); break;
    default: static_cast<__nv_bfloat16*>(to)[index] = __double2bfloat16(value);
  }
}

double scalar(const void* from, int compute) {
  if (compute == COMPUTE_64F || compute == COMPUTE_64F_PEDANTIC) return *static_cast<const double*>(from);
  if (compute == COMPUTE_16F || compute == COMPUTE_16F_PEDANTIC) return __half2float(*static_cast<const __half*>(from));
  return *static_cast<const float*>(from);
}

// A matrix in memory, column by column.
struct Matrix {
  const char* name;
  const void* data;
  cudaDataType type;
  int rows, columns, leading;
  long long stride;

  bool valid(int batch) const {
    if (element_size(type) == 0 || leading < (rows > 1 ? rows : 1)) return false;
    const long long last = (batch - 1) * stride + (long long)(columns - 1) * leading + rows;
    return cuda_emu_check_range("cublasGemmStridedBatchedEx", name, data, (size_t)last * element_size(type));
  }
};

int multiply(int operation_a, int operation_b, int m, int n, int k, double alpha, double beta, const Matrix& a, const Matrix& b,
             const Matrix& c, void* output, int batch) {
  if (m == 0 || n == 0 || batch == 0) return SUCCESS;
  if (m < 0 || n < 0 || k < 0 || batch < 0) return INVALID_VALUE;
  if (!c.valid(batch) || (k > 0 && (!a.valid(batch) || !b.valid(batch)))) return INVALID_VALUE;
  // op(A) once in f64, so that the inner loop is over contiguous memory whatever the layout.
  std::vector<double> columns_of_a((size_t)m * k), column(m);
  for (int item = 0; item < batch; item++) {
    const size_t base_a = item * a.stride, base_b = item * b.stride, base_c = item * c.stride;
    for (int p = 0; p < k; p++)
      for (int i = 0; i < m; i++)
        columns_of_a[(size_t)p * m + i] =
            load(a.data, a.type, base_a + (operation_a == PLAIN ? i + (size_t)p * a.leading : p + (size_t)i * a.leading));
    for (int j = 0; j < n; j++) {
      std::fill(column.begin(), column.end(), 0.0);
      for (int p = 0; p < k; p++) {
        const double factor =
            load(b.data, b.type, base_b + (operation_b == PLAIN ? p + (size_t)j * b.leading : j + (size_t)p * b.leading));
        const double* from = &columns_of_a[(size_t)p * m];
        for (int i = 0; i < m; i++) column[i] += factor * from[i];
      }
      for (int i = 0; i < m; i++) {
        const size_t at = base_c + i + (size_t)j * c.leading;
        // With beta 0 the output is not read: it may hold NaN.
        store(output, c.type, at, alpha * column[i] + (beta != 0 ? beta * load(output, c.type, at) : 0));
      }
    }
  }
  return SUCCESS;
}

}  // namespace

extern "C" {

int cublasCreate_v2(void** handle) {
  cuda_emu_log("cublasCreate_v2");
  *handle = new char;
  return SUCCESS;
}

int cublasDestroy_v2(void* handle) {
  cuda_emu_log("cublasDestroy_v2");
  delete static_cast<char*>(handle);
  return SUCCESS;
}

int cublasSetStream_v2(void*, void*) { return SUCCESS; }
int cublasSetMathMode(void*, int) { return SUCCESS; }

int cublasGemmStridedBatchedEx(void*, int operation_a, int operation_b, int m, int n, int k, const void* alpha, const void* a,
                               cudaDataType a_type, int lda, long long stride_a, const void* b, cudaDataType b_type, int ldb,
                               long long stride_b, const void* beta, void* c, cudaDataType c_type, int ldc, long long stride_c,
                               int batch, int compute, int) {
  char line[128];
  snprintf(line, sizeof line, "cublasGemmStridedBatchedEx(%d, %d, m %d, n %d, k %d, batch %d)", operation_a, operation_b, m, n, k, batch);
  cuda_emu_log(line);
  const bool plain_a = operation_a == PLAIN, plain_b = operation_b == PLAIN;
  return multiply(operation_a, operation_b, m, n, k, scalar(alpha, compute), scalar(beta, compute),
                  {"matrix A", a, a_type, plain_a ? m : k, plain_a ? k : m, lda, stride_a},
                  {"matrix B", b, b_type, plain_b ? k : n, plain_b ? n : k, ldb, stride_b},
                  {"matrix C", c, c_type, m, n, ldc, stride_c}, c, batch);
}

int cublasDgemmStridedBatched(void* handle, int operation_a, int operation_b, int m, int n, int k, const double* alpha,
                              const double* a, int lda, long long stride_a, const double* b, int ldb, long long stride_b,
                              const double* beta, double* c, int ldc, long long stride_c, int batch) {
  return cublasGemmStridedBatchedEx(handle, operation_a, operation_b, m, n, k, alpha, a, CUDA_R_64F, lda, stride_a, b, CUDA_R_64F,
                                    ldb, stride_b, beta, c, CUDA_R_64F, ldc, stride_c, batch, COMPUTE_64F, 0);
}

}  // extern "C"
