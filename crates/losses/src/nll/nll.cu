// Negative log-likelihood of class indices, forward and backward; the formulas are those of fused.rs.
//
//   loss of a row = -w_y x_y, its gradient -w_y at y and 0 elsewhere; 0 for an ignored row, which is not read.
//
// Memory. A row costs its target, one number of x, wherever that lies, and the weight of its class; nothing of x is read beside that.
// `sum` reduces on the way and stores no losses of rows. `put` writes one number of each row into a gradient of zeros: the floor is one
// write of the gradient, and a memset has the full bandwidth whatever the shape.
//
// Launches. A thread takes rows in strides of the grid. Sums are those of row_totals.cuh: up to 4096 rows take a single launch. The
// geometry depends on the number of rows alone, and so do the bits.
//
// A target that is neither a class nor ignored gives loss NaN and gradient 0; no memory is reached by its value.

#include "../cuda_kernel/class_indices.cuh"
#include "../cuda_kernel/element.cuh"
#include "../cuda_kernel/levels.cuh"
#include "../cuda_kernel/row_totals.cuh"

// The arguments of a kernel under one name. Strides count elements.
template <class E>
struct Run {
  Indices target;
  const Compute<E>* weights;  // null: all 1
  uint64_t rows;
  uint64_t class_stride;  // of x, or of the gradient

  // -w_y
  __device__ __forceinline__ Compute<E> factor(const int64_t y) const { return weights ? -weights[y] : Compute<E>(-1); }

  // Of the row whose class 0 is at `x`.
  __device__ __forceinline__ Compute<E> loss(const E* x, const int64_t y) const {
    if (y >= 0) return factor(y) * widen(x[y * class_stride]);
    return y == INVALID ? Compute<E>(NAN) : Compute<E>(0);
  }
};

// How the tensors of a pass lie, row by row.
template <int N>
struct Lie {
  uint64_t inner, strides[N][2];  // of x or the gradient, of the targets, of the upstream gradient
  const uint64_t* levels;
  uint32_t level_count;

  __device__ __forceinline__ void find(const uint64_t row, uint64_t (&at)[N]) const { locate(row, inner, strides, levels, level_count, at); }
};

static __device__ __forceinline__ uint64_t first_row() { return (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; }
static __device__ __forceinline__ uint64_t next_row() { return (uint64_t)gridDim.x * blockDim.x; }

// The loss of each row.
template <class E>
static __device__ __forceinline__ void each(const Run<E>& run, const E* x, const Lie<2>& lie, Compute<E>* losses) {
  for (uint64_t row = first_row(); row < run.rows; row += next_row()) {
    uint64_t at[2];
    lie.find(row, at);
    losses[row] = run.loss(x + at[0], run.target.at(at[1]));
  }
}

// The totals of all rows, and the reduced loss.
template <class E>
static __device__ __forceinline__ void sum(const Run<E>& run, const E* x, const Lie<2>& lie, double* partial,
                                           const Ending<Compute<E>>& end) {
  Totals own = NOTHING;
  for (uint64_t row = first_row(); row < run.rows; row += next_row()) {
    uint64_t at[2];
    lie.find(row, at);
    const int64_t y = run.target.at(at[1]);
    own.loss += (double)run.loss(x + at[0], y);
    if (y >= 0) own.weight += run.weights ? (double)run.weights[y] : 1.0;
    if (y == INVALID) own.invalid = fmin(own.invalid, (double)row);
  }
  leave(own, partial, end);
}

// The gradient at the target of each row that counts. `totals` has the divisor where it is not null: then it is 0 for the mean over
// nothing, which is a constant.
template <class E>
static __device__ __forceinline__ void put(const Run<E>& run, const Compute<E>* upstream, const Lie<3>& lie, const double* totals,
                                           E* gradient) {
  const double by = totals ? totals[1] : 1.0;
  if (by == 0.0) return;
  for (uint64_t row = first_row(); row < run.rows; row += next_row()) {
    uint64_t at[3];
    lie.find(row, at);
    const int64_t y = run.target.at(at[1]);
    if (y < 0) continue;
    gradient[at[0] + y * run.class_stride] = narrow<E>(run.factor(y) * upstream[at[2]] / (Compute<E>)by);
  }
}

#define PARAMETERS(A)                                                                                                                       \
  const void *targets, const uint32_t target_type, const uint32_t classes, const uint32_t has_ignore, const int64_t ignore,                \
      const A *weights, const uint64_t rows, const uint64_t class_stride
#define RUN {{targets, target_type, classes, has_ignore, ignore}, weights, rows, class_stride}
#define PICK_LIE                                                                                                                            \
  const uint64_t inner, const uint64_t x_outer, const uint64_t x_inner, const uint64_t target_outer, const uint64_t target_inner,          \
      const uint64_t *levels, const uint32_t level_count
#define PICK_LIES {inner, {{x_outer, x_inner}, {target_outer, target_inner}}, levels, level_count}

// Grid: any. Block: 256 threads, and TOTALS_THREADS are as many.
#define KERNELS(E, A, SUFFIX)                                                                                                               \
  extern "C" __global__ void __launch_bounds__(256) nll_each_##SUFFIX(PARAMETERS(A), PICK_LIE, const E* x, A* losses) {                    \
    each<E>(RUN, x, PICK_LIES, losses);                                                                                                 \
  }                                                                                                                                        \
  extern "C" __global__ void __launch_bounds__(256) nll_sum_##SUFFIX(                                                                      \
      PARAMETERS(A), PICK_LIE, const E* x, double* partial, const uint32_t by_weight, const double divisor, const double of_nothing,       \
      A* loss, double* totals) {                                                                                                           \
    sum<E>(RUN, x, PICK_LIES, partial, {by_weight, divisor, of_nothing, loss, totals});                                                 \
  }                                                                                                                                        \
  extern "C" __global__ void __launch_bounds__(256) nll_put_##SUFFIX(                                                                      \
      PARAMETERS(A), const uint64_t inner, const uint64_t gradient_outer, const uint64_t gradient_inner, const uint64_t target_outer,      \
      const uint64_t target_inner, const uint64_t upstream_outer, const uint64_t upstream_inner, const uint64_t* levels,                   \
      const uint32_t level_count, const A* upstream, const double* totals, E* gradient) {                                                  \
    put<E>(RUN, upstream,                                                                                                               \
           {inner,                                                                                                                         \
            {{gradient_outer, gradient_inner}, {target_outer, target_inner}, {upstream_outer, upstream_inner}},                            \
            levels,                                                                                                                        \
            level_count},                                                                                                                  \
           totals, gradient);                                                                                                              \
  }

KERNELS(float, float, f32)
KERNELS(double, double, f64)
KERNELS(__half, float, f16)
KERNELS(__nv_bfloat16, float, bf16)
