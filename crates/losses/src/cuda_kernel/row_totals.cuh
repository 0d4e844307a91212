// Sums over the rows of a loss, in two stages whose order depends on the number of rows alone: each block adds up rows of its own, and
// where there are several blocks `row_totals.cu` adds up what they left. No atomics; sums in f64.
#pragma once

#include <stdint.h>

#include "reduce.cuh"

// Sums over rows: loss, weight of the rows that count, rows that count and whose argmax is the target, and the least row whose target is
// invalid (infinity: none).
struct Totals {
  double loss, weight, correct, invalid;
};
constexpr Totals NOTHING = {0.0, 0.0, 0.0, INFINITY};
constexpr uint32_t TOTALS_THREADS = 256;

// How the sums end; pointers may be null but for the totals.
template <class A>
struct Ending {
  uint32_t by_weight;  // whether the losses are divided by the weight
  double divisor;      // by what else
  double of_nothing;   // the loss where that is 0
  A* loss;
  double* totals;  // the sum of losses, the divisor, the number correct and the first invalid row
};

// Adds up the totals of a block's threads, all of which take part; thread 0 writes them to their end. Once in a kernel.
template <class A>
static __device__ __forceinline__ void conclude(const Totals& own, const Ending<A>& end) {
  __shared__ double loss[32], weight[32], correct[32], invalid[32];
  const Totals sum = {block_reduce(own.loss, loss, 0.0, Add()), block_reduce(own.weight, weight, 0.0, Add()),
                      block_reduce(own.correct, correct, 0.0, Add()), block_reduce(own.invalid, invalid, (double)INFINITY, Least())};
  if (threadIdx.x != 0) return;
  const double by = end.by_weight ? sum.weight : end.divisor;
  if (end.loss) *end.loss = (A)(by == 0.0 ? end.of_nothing : sum.loss / by);
  end.totals[0] = sum.loss;
  end.totals[1] = by;
  end.totals[2] = sum.correct;
  end.totals[3] = sum.invalid;
}

// As `conclude` where there is one block; else leaves the block's totals in `partial`, 4 numbers each, for `row_totals.cu`.
template <class A>
static __device__ __forceinline__ void leave(const Totals& own, double* partial, const Ending<A>& end) {
  // Member by member: a choice between two structs would put them into local memory.
  const bool ends = gridDim.x == 1;
  conclude<A>(own, {ends ? end.by_weight : 1, ends ? end.divisor : 0.0, end.of_nothing, ends ? end.loss : nullptr,
                    ends ? end.totals : partial + 4 * (uint64_t)blockIdx.x});
}
