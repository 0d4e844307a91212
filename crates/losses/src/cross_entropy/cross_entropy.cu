// Cross entropy of rows of logits, forward and backward; the formulas are those of cpu_kernel/recipe.rs.
//
// With x' the transformed logits of a row, m = max x', d = sum exp(x' - m), q the coefficients of -log softmax(x'):
//   loss       = sum_c q_c (log d - (x'_c - m)) + z lse^2, lse = m + log d: never lse - x', which would lose what large logits share
//   gradient_c = (A exp(x'_c - m) / d - g q_c + u 1[c = y]) dx'/dx, A = g (sum q + 2 z lse) + h - u
// for the upstream gradients g (divided), h, u of loss, lse and the target's log-probability.
//
// Memory. FORWARD reads the logits once, with the sum rescaled when a larger logit comes (online softmax), and keeps m and d of a row;
// GRADIENT reads them once more and writes the gradient; BOTH reads a row, and again to write the gradient: the second time
// from L1 or L2 as long as the rows in flight fit there (some 50 KB of L1 for each block, L2 for all together). The floor is thus
// s bytes for each logit in FORWARD and 2 s in GRADIENT and BOTH, s the size of an element; a row adds 1 to 8 bytes of target and 4 to 12
// of results. Probabilities add one read of theirs in each.
//
// Launches. Plain rows (class indices, logits as they are, adjacent classes, rows at one distance):
//   *_lanes  up to 1024 classes. `width` lanes of a warp take a row, 4 to 8 classes each until a whole warp does, so that rows of ten classes
//            leave few lanes idle; 128 threads a block. No shared memory, no block-wide barrier.
//   *_block  more classes. A block takes a row: 128 to 512 threads by the number of classes, two to four loads of sixteen bytes in flight
//            each; two blocks and more share a multiprocessor, so that one loads while another reduces.
// Everything else, *_general: teams of `size` threads of a block of 256, one element a load. Where classes are adjacent in memory so
// are the threads of a team; where rows are, threads of the same rank are, and loads of a warp stay adjacent in both.
// Sums over rows: `totals` adds chunks in f64 in a fixed order, `row_totals.cu` the chunks. No atomics, and the geometry depends on the
// problem alone, so the bits do not depend on the run or the size of the GPU.
//
// A target that is neither a class nor ignored gives loss NaN and gradient 0; no memory is reached by its value.

#include "../cuda_kernel/class_indices.cuh"
#include "../cuda_kernel/element.cuh"
#include "../cuda_kernel/levels.cuh"
#include "../cuda_kernel/reduce.cuh"
#include "../cuda_kernel/row_totals.cuh"
#include "team_reduce.cuh"

// What a pass computes.
enum Pass {
  FORWARD,          // loss and what else a row gives
  GRADIENT,         // the gradient, from what FORWARD kept
  BOTH,             // loss and gradient; the gradient may take the place of the logits
  TARGET_GRADIENT,  // the gradient with respect to probabilities, from what FORWARD kept
};

// The type of targets that are probabilities.
constexpr uint32_t PROBABILITIES = NO_INDICES;

// No class at all.
constexpr uint32_t NONE = 0xffffffffu;

// The options, in the type that is computed in.
template <class A>
struct Recipe {
  A scale, cap, z_loss, hard, uniform;  // cap 0: none
  const A* weights;                     // null: all 1
  bool probabilities;

  __device__ __forceinline__ bool is_dense() const { return probabilities || uniform != A(0); }

  // The coefficient of the target's class alone, (1 - e) w_y; 0 where there is none.
  __device__ __forceinline__ A hard_coefficient(const int64_t target) const {
    if (probabilities || target < 0) return A(0);
    return weights ? hard * weights[target] : hard;
  }

  // x' = s tanh(a x / s)
  __device__ __forceinline__ A transform(A x) const {
    x *= scale;
    return cap != A(0) ? hyperbolic_tangent(x / cap) * cap : x;
  }

  // dx'/dx as a function of x'
  __device__ __forceinline__ A slope(const A transformed) const {
    if (cap == A(0)) return scale;
    const A t = transformed / cap;
    return scale * (A(1) - t * t);
  }
};

// Sums over a row that are taken together.
template <class A>
struct Sums {
  A sum;            // sum exp(x' - max)
  A dense;          // the sum of the coefficients that all classes have (smoothing, probabilities)
  A dense_shifted;  // the sum of the same coefficients times (x' - max)
};
template <class A>
static __device__ __forceinline__ Sums<A> operator+(const Sums<A>& a, const Sums<A>& b) {
  return {a.sum + b.sum, a.dense + b.dense, a.dense_shifted + b.dense_shifted};
}

// What the passes over a row found.
template <class A>
struct RowSums {
  A max, log_sum, target;
  Sums<A> sums;
};

// What a row has to give.
template <class A>
struct RowValue {
  A loss, max, sum, dense, lse, target_log_prob;
  uint32_t argmax;
};

// The gradient of a row: (scaled exp(x' - max) - loss dense coefficient - at_target 1[c = y]) dx'/dx.
template <class A>
struct RowGradient {
  A max, scaled, loss, at_target;
};

// The upstream gradients of a row, the loss's divided.
template <class A>
struct RowUpstream {
  A loss, lse, target_log_prob;
};

// Of a row that is not read, or only for its lse and argmax.
template <class A>
static __device__ __forceinline__ RowValue<A> unread(const int64_t target) {
  const A loss = target == INVALID ? A(NAN) : A(0);
  return {loss, A(0), A(1), A(0), A(0), loss, 0};
}

template <class A>
static __device__ __forceinline__ RowValue<A> value(const Recipe<A>& recipe, const int64_t target, const RowSums<A>& row,
                                                    const uint32_t argmax) {
  RowValue<A> out = unread<A>(target);
  out.max = row.max;
  out.sum = row.sums.sum;
  out.dense = row.sums.dense;
  out.lse = row.max + row.log_sum;
  out.argmax = argmax;
  if (target < 0) return out;
  const A negative_log_prob = row.log_sum - (row.target - row.max);
  const A hard = recipe.hard_coefficient(target);
  // A coefficient of 0 contributes 0, also where x' is -inf; a row that is NaN stays NaN.
  A loss = hard != A(0) || row.sums.sum != row.sums.sum ? hard * negative_log_prob : A(0);
  if (recipe.is_dense()) loss += row.sums.dense * row.log_sum - row.sums.dense_shifted;
  if (recipe.z_loss != A(0)) loss += recipe.z_loss * out.lse * out.lse;
  out.loss = loss;
  out.target_log_prob = -negative_log_prob;
  return out;
}

template <class A>
static __device__ __forceinline__ RowGradient<A> gradient(const Recipe<A>& recipe, const int64_t target, const A max, const A sum,
                                                          const A dense, const RowUpstream<A>& upstream) {
  const A hard = recipe.hard_coefficient(target);
  A of_loss = hard;
  if (recipe.is_dense()) of_loss += dense;
  if (recipe.z_loss != A(0)) of_loss += A(2) * recipe.z_loss * (max + logarithm(sum));
  const A of_probability = upstream.loss * of_loss + upstream.lse - upstream.target_log_prob;
  return {max, of_probability / sum, upstream.loss, upstream.loss * hard - upstream.target_log_prob};
}

// max x' and the sums so far, of some classes of a row, and the first class with that maximum.
template <class A>
struct Online {
  A max = -INFINITY;
  Sums<A> sums = {A(0), A(0), A(0)};
  uint32_t first = NONE;

  // What is subtracted before the exponential: classes that are all -inf add 0, and their NaN, if any.
  static __device__ __forceinline__ A shift(const A max) { return max == A(-INFINITY) ? A(0) : max; }

  // The sums with another maximum, at least as large.
  __device__ __forceinline__ Sums<A> with(const A larger_max) const {
    if (larger_max == max) return sums;
    // Before the first finite logit the sum is 0, or NaN to stay.
    const A factor = max == A(-INFINITY) ? A(1) : exponential(max - larger_max);
    return {sums.sum * factor, sums.dense, sums.dense_shifted + sums.dense * (shift(max) - shift(larger_max))};
  }

  // `classes(i)` is the class of x[i], ascending.
  template <int N, class Classes>
  __device__ __forceinline__ void add(const A (&x)[N], const bool wants_first, const Classes classes) {
    A found = max;
#pragma unroll
    for (int i = 0; i < N; i++) found = larger(found, x[i]);
    if (wants_first && (found > max || first == NONE)) {
#pragma unroll
      for (int i = N - 1; i >= 0; i--)
        if (x[i] == found) first = classes(i);
    }
    if (found > max) {
      sums = with(found);
      max = found;
    }
    const A base = shift(max);
    A e[N];
#pragma unroll
    for (int i = 0; i < N; i++) e[i] = exponential(x[i] - base);
    // In pairs, so that additions do not wait for each other.
#pragma unroll
    for (int step = 1; step < N; step *= 2)
#pragma unroll
      for (int i = 0; i + step < N; i += 2 * step) e[i] += e[i + step];
    sums.sum += e[0];
  }

  // After `add` of the same x: a coefficient of 0 contributes 0, also where x' is -inf.
  __device__ __forceinline__ void add_dense(const A q, const A x) {
    sums.dense += q;
    if (q != A(0)) sums.dense_shifted += q * (x - shift(max));
  }
};

// One pass over rows: the arguments of a kernel under one name. Strides count elements.
template <class E>
struct Run {
  using A = Compute<E>;

  const E* logits;
  Indices target;
  Recipe<A> recipe;
  uint64_t rows;
  uint32_t classes;
  // Results of each row, null where they are not wanted; GRADIENT reads maxima, sums and, where coefficients are dense, dense.
  A *losses, *maxima, *sums, *dense, *lse, *target_log_prob;
  uint32_t* argmax;
  // The gradient, and upstream gradients: null is 1 for the loss and 0 for the others.
  E* gradient;
  const A *upstream, *upstream_lse, *upstream_target_log_prob;
  uint64_t others_stride;
  // What the losses are divided by: the second of the totals where there are any.
  const double* totals;
  double divisor;

  __device__ __forceinline__ bool wants_every_row() const { return lse || argmax; }

  __device__ __forceinline__ RowUpstream<A> upstream_of(const uint64_t row, const uint64_t at, const bool counts) const {
    const double by = totals ? totals[1] : divisor;
    RowUpstream<A> out = {A(0), A(0), A(0)};
    // A mean over nothing is a constant.
    if (counts && by != 0.0) out.loss = (upstream ? upstream[at] : A(1)) / A(by);
    if (upstream_lse) out.lse = upstream_lse[row * others_stride];
    if (counts && upstream_target_log_prob) out.target_log_prob = upstream_target_log_prob[row * others_stride];
    return out;
  }

  __device__ __forceinline__ void write(const uint64_t row, const RowValue<A>& x) const {
    if (losses) losses[row] = x.loss;
    if (maxima) maxima[row] = x.max;
    if (sums) sums[row] = x.sum;
    if (dense) dense[row] = x.dense;
    if (lse) lse[row] = x.lse;
    if (target_log_prob) target_log_prob[row] = x.target_log_prob;
    if (argmax) argmax[row] = x.argmax;
  }
};

// Threads that share a row of a plain pass: adjacent lanes of a warp.
template <class A>
struct Lanes {
  uint32_t size, rank;

  __device__ __forceinline__ A max(const A x) const { return warp_reduce(x, size, Largest()); }
  __device__ __forceinline__ A sum(const A x) const { return warp_reduce(x, size, Add()); }
  __device__ __forceinline__ uint32_t least(const uint32_t x) const { return warp_reduce(x, size, Least()); }
  // What others read before they write over it. Shuffles do not order memory.
  __device__ __forceinline__ void order() const { __syncwarp(); }
};

// Threads that share a row of a plain pass: a block.
template <class A>
struct Block {
  uint32_t size, rank;

  __device__ __forceinline__ A max(const A x) const {
    __shared__ A partial[32];
    return block_reduce(x, partial, A(-INFINITY), Largest());
  }
  __device__ __forceinline__ A sum(const A x) const {
    __shared__ A partial[32];
    return block_reduce(x, partial, A(0), Add());
  }
  __device__ __forceinline__ uint32_t least(const uint32_t x) const {
    __shared__ uint32_t partial[32];
    return block_reduce(x, partial, NONE, Least());
  }
  // The barriers of the reductions have done it.
  __device__ __forceinline__ void order() const {}
};

// How many vectors of sixteen bytes a thread has in flight: sixteen numbers at most, which its registers hold with what else there is.
template <class E>
constexpr uint32_t UNROLL = sizeof(E) == 2 ? 2 : 4;

// Where the vectors of a row lie: classes [0, head), then `count` vectors, then the rest. Few classes are taken one by one.
template <class E>
struct Vectors {
  uint32_t head, count;

  __device__ __forceinline__ Vectors(const E* x, const uint32_t classes, const uint32_t threads) {
    const uint32_t before = until_aligned(x);
    const bool few = classes < threads * LANES<E> + before;
    head = few ? classes : before;
    count = few ? 0 : (classes - before) / LANES<E>;
  }

  // The i-th class that lies in no vector.
  __device__ __forceinline__ uint32_t single(const uint32_t i) const { return i < head ? i : i + count * LANES<E>; }
  __device__ __forceinline__ uint32_t singles(const uint32_t classes) const { return classes - count * LANES<E>; }
};

// Calls f(x, class of x[i]) for all classes of a row with the elements that this thread takes, several at a time.
template <class E, class Team, class F>
static __device__ __forceinline__ void visit(const Team& team, const E* x, const uint32_t classes, F&& f) {
  using A = Compute<E>;
  constexpr uint32_t V = LANES<E>;
  const Vectors<E> vectors(x, classes, team.size);
  const uint32_t singles = vectors.singles(classes);
  uint32_t i = team.rank;
  for (; i + 3 * team.size < singles; i += 4 * team.size) {
    A values[4];
#pragma unroll
    for (uint32_t k = 0; k < 4; k++) values[k] = widen(x[vectors.single(i + k * team.size)]);
    f(values, [&](const uint32_t k) { return vectors.single(i + k * team.size); });
  }
  for (; i < singles; i += team.size) {
    const A values[1] = {widen(x[vectors.single(i)])};
    f(values, [&](const uint32_t) { return vectors.single(i); });
  }
  const E* body = x + vectors.head;
  i = team.rank;
  for (; i + (UNROLL<E> - 1) * team.size < vectors.count; i += UNROLL<E> * team.size) {
    A values[UNROLL<E> * V];
#pragma unroll
    for (uint32_t k = 0; k < UNROLL<E>; k++) load_lanes(body + (uint64_t)(i + k * team.size) * V, values + k * V);
    f(values, [&](const uint32_t k) { return vectors.head + (i + k / V * team.size) * V + k % V; });
  }
  for (; i < vectors.count; i += team.size) {
    A values[V];
    load_lanes(body + (uint64_t)i * V, values);
    f(values, [&](const uint32_t k) { return vectors.head + i * V + k; });
  }
}

// Writes f(x, class) for all classes of a row; x and out may be the same row.
template <class E, class Team, class F>
static __device__ __forceinline__ void rewrite(const Team& team, const E* x, E* out, const uint32_t classes, F&& f) {
  using A = Compute<E>;
  constexpr uint32_t V = LANES<E>;
  const Vectors<E> vectors(x, classes, team.size);
  const uint32_t singles = vectors.singles(classes);
  for (uint32_t i = team.rank; i < singles; i += team.size) {
    const uint32_t c = vectors.single(i);
    out[c] = narrow<E>(f(widen(x[c]), c));
  }
  const bool aligned = until_aligned(out + vectors.head) == 0;
  uint32_t i = team.rank;
  const auto one = [&](const uint32_t vector, A* values) {
    const uint32_t c = vectors.head + vector * V;
#pragma unroll
    for (uint32_t k = 0; k < V; k++) values[k] = f(values[k], c + k);
    if (aligned) {
      store_lanes<E>(values, out + c);
    } else {
#pragma unroll
      for (uint32_t k = 0; k < V; k++) out[c + k] = narrow<E>(values[k]);
    }
  };
  for (; i + (UNROLL<E> - 1) * team.size < vectors.count; i += UNROLL<E> * team.size) {
    A values[UNROLL<E>][V];
#pragma unroll
    for (uint32_t k = 0; k < UNROLL<E>; k++) load_lanes(x + vectors.head + (uint64_t)(i + k * team.size) * V, values[k]);
#pragma unroll
    for (uint32_t k = 0; k < UNROLL<E>; k++) one(i + k * team.size, values[k]);
  }
  for (; i < vectors.count; i += team.size) {
    A values[V];
    load_lanes(x + vectors.head + (uint64_t)i * V, values);
    one(i, values);
  }
}

// One row of a plain pass. Lanes of a warp may have different rows, or none, and reach every reduction together.
template <Pass PASS, class E, class Team>
static __device__ __forceinline__ void plain_row(const Run<E>& run, const Team& team, const uint64_t row, const uint64_t logits_stride,
                                                 const uint64_t target_stride, const uint64_t gradient_stride,
                                                 const uint64_t upstream_stride) {
  using A = Compute<E>;
  const bool exists = row < run.rows;
  const int64_t target = exists ? run.target.at(row * target_stride) : IGNORED;
  const bool counts = target >= 0;
  RowUpstream<A> upstream = {A(0), A(0), A(0)};
  if (PASS != FORWARD && exists) upstream = run.upstream_of(row, row * upstream_stride, counts);
  // Not the logits of a row that does not count, whatever they hold.
  const bool reads = exists && (counts || run.wants_every_row() || upstream.lse != A(0));
  const uint32_t classes = reads ? run.classes : 0;
  const E* x = run.logits + row * logits_stride;
  RowSums<A> found = {A(0), A(0), A(0), {A(1), A(0), A(0)}};
  if (PASS == GRADIENT) {
    if (reads) {
      found.max = run.maxima[row];
      found.sums.sum = run.sums[row];
    }
  } else {
    if (counts) found.target = widen(x[target]);
    Online<A> online;
    visit(team, x, classes, [&](const auto& values, const auto classes_of) { online.add(values, run.argmax, classes_of); });
    found.max = team.max(online.max);
    found.sums.sum = team.sum(online.with(found.max).sum);
    found.log_sum = logarithm(found.sums.sum);
    uint32_t argmax = 0;
    if (run.argmax) {
      argmax = team.least(online.max == found.max ? online.first : NONE);
      if (argmax == NONE) argmax = 0;
    }
    if (exists && team.rank == 0) run.write(row, reads ? value(run.recipe, target, found, argmax) : unread<A>(target));
  }
  if (PASS == FORWARD) return;
  if (PASS == BOTH) team.order();
  if (!exists) return;
  E* out = run.gradient + row * gradient_stride;
  if (!reads) {
    for (uint32_t c = team.rank; c < run.classes; c += team.size) out[c] = narrow<E>(A(0));
    return;
  }
  const RowGradient<A> g = gradient(run.recipe, target, found.max, found.sums.sum, A(0), upstream);
  const uint32_t y = counts ? (uint32_t)target : NONE;
  rewrite(team, x, out, classes, [&](const A logit, const uint32_t c) {
    const A p = exponential(logit - g.max) * g.scaled;
    return c == y ? p - g.at_target : p;
  });
}

template <Pass PASS, class E>
static __device__ __forceinline__ void plain_lanes(const Run<E>& run, const uint64_t logits_stride, const uint64_t target_stride,
                                                   const uint64_t gradient_stride, const uint64_t upstream_stride,
                                                   const uint32_t width) {
  const Lanes<Compute<E>> team = {width, threadIdx.x % width};
  const uint64_t row = (uint64_t)blockIdx.x * (blockDim.x / width) + threadIdx.x / width;
  plain_row<PASS>(run, team, row, logits_stride, target_stride, gradient_stride, upstream_stride);
}

template <Pass PASS, class E>
static __device__ __forceinline__ void plain_block(const Run<E>& run, const uint64_t logits_stride, const uint64_t target_stride,
                                                   const uint64_t gradient_stride, const uint64_t upstream_stride, const uint32_t) {
  const Block<Compute<E>> team = {blockDim.x, threadIdx.x};
  plain_row<PASS>(run, team, blockIdx.x, logits_stride, target_stride, gradient_stride, upstream_stride);
}

constexpr uint32_t GENERAL_THREADS = 256;

// Where the tensors of a general pass lie.
struct Layouts {
  uint64_t inner, strides[4][2];  // of logits, targets, gradient, upstream gradient: in the level around the innermost, and in that
  const uint64_t* levels;
  uint32_t level_count;
  uint64_t logits_class, target_class, gradient_class;  // from one class to the next
};

template <Pass PASS, class E>
static __device__ __forceinline__ void general(const Run<E>& run, const Layouts& layouts, const uint32_t size,
                                               const bool rows_adjacent) {
  using A = Compute<E>;
  __shared__ A shared_max[GENERAL_THREADS];
  __shared__ Sums<A> shared_sums[GENERAL_THREADS];
  __shared__ uint32_t shared_first[GENERAL_THREADS];
  const Recipe<A>& recipe = run.recipe;
  const uint32_t rows_per_block = blockDim.x / size;
  const uint32_t rank = rows_adjacent ? threadIdx.x / rows_per_block : threadIdx.x % size;
  const uint32_t slot = rows_adjacent ? threadIdx.x % rows_per_block : threadIdx.x / size;
  const uint32_t step = rows_adjacent ? rows_per_block : 1;
  const bool is_dense = recipe.is_dense();

  const uint64_t row = (uint64_t)blockIdx.x * rows_per_block + slot;
  const bool exists = row < run.rows;
  uint64_t at[4] = {0, 0, 0, 0};
  if (exists) locate(row, layouts.inner, layouts.strides, layouts.levels, layouts.level_count, at);
  const int64_t target = exists ? run.target.at(at[1]) : IGNORED;
  const bool counts = target >= 0;
  RowUpstream<A> upstream = {A(0), A(0), A(0)};
  if (PASS != FORWARD && exists) upstream = run.upstream_of(row, at[3], counts);
  const bool reads = exists && (counts || run.wants_every_row() || upstream.lse != A(0));
  const E* x = run.logits + at[0];
  const E* probabilities = static_cast<const E*>(run.target.data) + at[1];
  // The coefficient that a class has beside the target's.
  const auto coefficient = [&](const uint32_t c) {
    A q = recipe.uniform;
    if (recipe.probabilities) q += recipe.hard * widen(probabilities[c * layouts.target_class]);
    return recipe.weights ? q * recipe.weights[c] : q;
  };

  RowSums<A> found = {A(0), A(0), A(0), {A(1), A(0), A(0)}};
  if (PASS == GRADIENT || PASS == TARGET_GRADIENT) {
    if (reads) {
      found.max = run.maxima[row];
      found.sums.sum = run.sums[row];
      if (is_dense) found.sums.dense = run.dense[row];
    }
  } else {
    // Read before others may write over it.
    if (counts && !recipe.probabilities) found.target = recipe.transform(widen(x[target * layouts.logits_class]));
    Online<A> online;
    uint32_t c = reads ? rank : run.classes;
    for (; c + 3 * size < run.classes; c += 4 * size) {
      A values[4];
#pragma unroll
      for (uint32_t k = 0; k < 4; k++) values[k] = widen(x[(c + k * size) * layouts.logits_class]);
#pragma unroll
      for (uint32_t k = 0; k < 4; k++) values[k] = recipe.transform(values[k]);
      online.add(values, run.argmax, [&](const uint32_t k) { return c + k * size; });
      if (is_dense) {
#pragma unroll
        for (uint32_t k = 0; k < 4; k++) online.add_dense(coefficient(c + k * size), values[k]);
      }
    }
    for (; c < run.classes; c += size) {
      const A values[1] = {recipe.transform(widen(x[c * layouts.logits_class]))};
      online.add(values, run.argmax, [&](const uint32_t) { return c; });
      if (is_dense) online.add_dense(coefficient(c), values[0]);
    }
    found.max = team_reduce(online.max, shared_max, size, rank, step, Largest());
    found.sums = team_reduce(online.with(found.max), shared_sums, size, rank, step, Add());
    found.log_sum = logarithm(found.sums.sum);
    uint32_t argmax = 0;
    if (run.argmax) {
      argmax = team_reduce(online.max == found.max ? online.first : NONE, shared_first, size, rank, step, Least());
      if (argmax == NONE) argmax = 0;
    }
    if (exists && rank == 0) run.write(row, reads ? value(recipe, target, found, argmax) : unread<A>(target));
  }
  if (PASS == FORWARD || !exists) return;

  E* out = run.gradient + at[2];
  if (!reads) {
    for (uint32_t c = rank; c < run.classes; c += size) out[c * layouts.gradient_class] = narrow<E>(A(0));
    return;
  }
  if (PASS == TARGET_GRADIENT) {
    const A log_sum = logarithm(found.sums.sum);
    for (uint32_t c = rank; c < run.classes; c += size) {
      const A log_p = recipe.transform(widen(x[c * layouts.logits_class])) - found.max - log_sum;
      const A w = recipe.weights ? recipe.hard * recipe.weights[c] : recipe.hard;
      out[c * layouts.gradient_class] = narrow<E>(-(log_p * w * upstream.loss));
    }
    return;
  }
  const RowGradient<A> g = gradient(recipe, target, found.max, found.sums.sum, found.sums.dense, upstream);
  const uint32_t y = counts && !recipe.probabilities ? (uint32_t)target : NONE;
  for (uint32_t c = rank; c < run.classes; c += size) {
    const A transformed = recipe.transform(widen(x[c * layouts.logits_class]));
    A p = exponential(transformed - g.max) * g.scaled;
    if (is_dense) p -= g.loss * coefficient(c);
    if (c == y) p -= g.at_target;
    out[c * layouts.gradient_class] = narrow<E>(p * recipe.slope(transformed));
  }
}

// Adds up losses and what else there is of the rows.
template <class A>
static __device__ __forceinline__ void add_rows(const A* losses, const uint32_t* argmax, const Indices& target, const uint64_t inner,
                                                const uint64_t (&strides)[1][2], const uint64_t* levels, const uint32_t level_count,
                                                const A* weights, const uint64_t rows, double* partial, const Ending<A>& end) {
  Totals own = NOTHING;
  for (uint64_t row = (uint64_t)blockIdx.x * TOTALS_THREADS + threadIdx.x; row < rows; row += (uint64_t)gridDim.x * TOTALS_THREADS) {
    if (losses) own.loss += losses[row];
    if (target.type == PROBABILITIES) {
      own.weight += 1.0;
      continue;
    }
    uint64_t at[1];
    locate(row, inner, strides, levels, level_count, at);
    const int64_t y = target.at(at[0]);
    if (y >= 0) {
      own.weight += weights ? (double)weights[y] : 1.0;
      if (argmax && (int64_t)argmax[row] == y) own.correct += 1.0;
    } else if (y == INVALID) {
      own.invalid = fmin(own.invalid, (double)row);
    }
  }
  leave(own, partial, end);
}

// Rows to totals. Grid: up to 1024 blocks. Block: TOTALS_THREADS.
#define TOTALS_KERNELS(A, SUFFIX)                                                                                                           \
  extern "C" __global__ void __launch_bounds__(TOTALS_THREADS) cross_entropy_totals_##SUFFIX(                                              \
      const A* losses, const uint32_t* argmax, const void* targets, const uint32_t target_type, const uint32_t classes,                    \
      const uint32_t has_ignore, const int64_t ignore, const uint64_t inner, const uint64_t target_outer, const uint64_t target_inner,     \
      const uint64_t* levels, const uint32_t level_count, const A* weights, const uint64_t rows, double* partial,                          \
      const uint32_t by_weight, const double divisor, const double of_nothing, A* loss, double* totals) {                                  \
    const Indices target = {targets, target_type, classes, has_ignore, ignore};                                                            \
    const uint64_t strides[1][2] = {{target_outer, target_inner}};                                                                         \
    const Ending<A> end = {by_weight, divisor, of_nothing, loss, totals};                                                                  \
    add_rows(losses, argmax, target, inner, strides, levels, level_count, weights, rows, partial, end);                                    \
  }

TOTALS_KERNELS(float, f32)
TOTALS_KERNELS(double, f64)

// What every pass takes first, A being what E is computed in.
#define PARAMETERS(E, A)                                                                                                                    \
  const E *logits, const void *targets, const uint32_t target_type, const uint32_t has_ignore, const int64_t ignore, const A *weights,     \
      const A z_loss, const uint64_t rows, const uint32_t classes, A *losses, A *maxima, A *sums, A *dense, A *lse, A *target_log_prob,    \
      uint32_t *argmax, E *gradient, const A *upstream, const A *upstream_lse, const A *upstream_target_log_prob,                          \
      const uint64_t others_stride, const double *totals, const double divisor
#define RUN(E, RECIPE)                                                                                                                      \
  const Run<E> run = {logits,         {targets, target_type, classes, has_ignore, ignore}, RECIPE,                   rows,          classes, \
                      losses,         maxima,                                              sums,                     dense,         lse,     \
                      target_log_prob, argmax,                                             gradient,                 upstream,               \
                      upstream_lse,   upstream_target_log_prob,                            others_stride,            totals,        divisor}

// A plain pass. Grid: enough blocks for all rows, 128 / width rows a block for _lanes, one for _block. Block: 128 threads for _lanes; for
// _block whole warps, at most 512 threads.
#define PLAIN_KERNEL(E, A, SUFFIX, PASS, PASS_NAME, FORM, LIMIT)                                                                            \
  extern "C" __global__ void __launch_bounds__(LIMIT) cross_entropy_##PASS_NAME##_##FORM##_##SUFFIX(                                       \
      PARAMETERS(E, A), const uint64_t logits_stride, const uint64_t target_stride, const uint64_t gradient_stride,                        \
      const uint64_t upstream_stride, const uint32_t width) {                                                                              \
    const Recipe<A> recipe = {A(1), A(0), z_loss, A(1), A(0), weights, false};                                                             \
    RUN(E, recipe);                                                                                                                        \
    plain_##FORM<PASS>(run, logits_stride, target_stride, gradient_stride, upstream_stride, width);                                        \
  }

// Any pass. Grid: enough blocks for all rows, GENERAL_THREADS / size a block. Block: GENERAL_THREADS; `size` is a power of two up to it.
#define GENERAL_KERNEL(E, A, SUFFIX, PASS, PASS_NAME)                                                                                       \
  extern "C" __global__ void __launch_bounds__(GENERAL_THREADS) cross_entropy_##PASS_NAME##_general_##SUFFIX(                              \
      PARAMETERS(E, A), const A scale, const A cap, const A hard, const A uniform, const uint64_t inner, const uint64_t logits_outer,      \
      const uint64_t logits_inner, const uint64_t target_outer, const uint64_t target_inner, const uint64_t gradient_outer,                \
      const uint64_t gradient_inner, const uint64_t upstream_outer, const uint64_t upstream_inner, const uint64_t* levels,                 \
      const uint32_t level_count, const uint64_t logits_class, const uint64_t target_class, const uint64_t gradient_class,                 \
      const uint32_t size, const uint32_t rows_adjacent) {                                                                                 \
    const Recipe<A> recipe = {scale, cap, z_loss, hard, uniform, weights, target_type == PROBABILITIES};                                   \
    RUN(E, recipe);                                                                                                                        \
    const Layouts layouts = {inner,                                                                                                        \
                             {{logits_outer, logits_inner},                                                                                \
                              {target_outer, target_inner},                                                                                \
                              {gradient_outer, gradient_inner},                                                                            \
                              {upstream_outer, upstream_inner}},                                                                           \
                             levels,                                                                                                       \
                             level_count,                                                                                                  \
                             logits_class,                                                                                                 \
                             target_class,                                                                                                 \
                             gradient_class};                                                                                              \
    general<PASS>(run, layouts, size, rows_adjacent != 0);                                                                                 \
  }

#define KERNELS(E, A, SUFFIX)                                                            \
  PLAIN_KERNEL(E, A, SUFFIX, FORWARD, forward, lanes, 128)                               \
  PLAIN_KERNEL(E, A, SUFFIX, GRADIENT, gradient, lanes, 128)                             \
  PLAIN_KERNEL(E, A, SUFFIX, BOTH, both, lanes, 128)                                     \
  PLAIN_KERNEL(E, A, SUFFIX, FORWARD, forward, block, 512)                    \
  PLAIN_KERNEL(E, A, SUFFIX, GRADIENT, gradient, block, 512)                  \
  PLAIN_KERNEL(E, A, SUFFIX, BOTH, both, block, 512)                          \
  GENERAL_KERNEL(E, A, SUFFIX, FORWARD, forward)                                         \
  GENERAL_KERNEL(E, A, SUFFIX, GRADIENT, gradient)                                       \
  GENERAL_KERNEL(E, A, SUFFIX, BOTH, both)                                               \
  GENERAL_KERNEL(E, A, SUFFIX, TARGET_GRADIENT, target_gradient)

KERNELS(float, float, f32)
KERNELS(double, double, f64)
KERNELS(__half, float, f16)
KERNELS(__nv_bfloat16, float, bf16)
