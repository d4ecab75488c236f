// SPDX-License-Identifier: Apache-2.0
// Gram matrices and sums of magnitudes of a piece's groups, in f64 and the order of docs/numerics.md, "Reductions". What
// the predicate leaves out adds 0. Cost: n(n+1)/2 multiply-adds per element for a Gram.
#include <cmath>
#include <new>

#include "reference/merge_reduce.h"

namespace chorus::reference {
namespace {

uint64_t block_bytes(const ReduceState &state) {
  return static_cast<uint64_t>(gram_operands(state.desc)) * CHORUS_BLOCK * sizeof(double);
}

double block_product(const double *a, const double *b, int64_t count) {
  double lanes[CHORUS_LANES] = {};
  for (int64_t e = 0; e < count; ++e) lanes[e % CHORUS_LANES] += a[e] * b[e];
  return join_pairwise(lanes, CHORUS_LANES);
}

double block_magnitude(const double *a, int64_t count) {
  double lanes[CHORUS_LANES] = {};
  for (int64_t e = 0; e < count; ++e) lanes[e % CHORUS_LANES] += std::fabs(a[e]);
  return join_pairwise(lanes, CHORUS_LANES);
}

// Adds one block, `block` holding n operands of CHORUS_BLOCK elements each, to the running sums.
void add_block(const ReduceState &state, const double *block, int64_t count, PairwiseStream<double> *sums) {
  const auto operand = [&](int32_t i) { return block + int64_t{i} * CHORUS_BLOCK; };
  if (state.desc.statistic == CHORUS_STATISTIC_SUM) {
    for (int32_t i = 0; i < state.desc.n_inputs; ++i) sums[i].add(block_magnitude(operand(i), count));
    return;
  }
  const int32_t n = gram_operands(state.desc);
  uint64_t pair = 0;
  for (int32_t i = 0; i < n; ++i) {
    for (int32_t j = i; j < n; ++j) sums[pair++].add(block_product(operand(i), operand(j), count));
  }
}

}  // namespace

// Room for the streams of a Gram, or of n sums where those are more.
uint64_t sums_bytes(const ReduceState &state) {
  const uint64_t pairs = gram_size(state.desc), n = static_cast<uint64_t>(state.desc.n_inputs);
  return block_bytes(state) + (pairs > n ? pairs : n) * sizeof(PairwiseStream<double>);
}

void reduce_sums(const ReduceState &state, const chorus_merge_reduce_args &args, Walk *walk, void *memory) {
  const int32_t n = gram_operands(state.desc);
  const uint64_t results = state.desc.statistic == CHORUS_STATISTIC_SUM ? static_cast<uint64_t>(state.desc.n_inputs) : gram_size(state.desc);
  auto *block = static_cast<double *>(memory);
  auto *sums = reinterpret_cast<PairwiseStream<double> *>(static_cast<char *>(memory) + block_bytes(state));
  auto *statistic = static_cast<double *>(args.statistic);
  const Groups &groups = walk->groups();
  for (uint64_t g = 0; g < groups.count; ++g) {
    walk->begin_group(g);
    for (uint64_t p = 0; p < results; ++p) new (sums + p) PairwiseStream<double>;
    for (uint64_t from = 0; from < groups.size; from += CHORUS_BLOCK) {
      const uint64_t count = groups.size - from < CHORUS_BLOCK ? groups.size - from : CHORUS_BLOCK;
      Terms terms;
      for (uint64_t e = 0; e < count; ++e) {
        walk->element(from + e, &terms);
        for (int32_t i = 0; i < n; ++i) block[static_cast<uint64_t>(i) * CHORUS_BLOCK + e] = terms.satisfied[i] ? terms.values[i] : 0.0;
      }
      add_block(state, block, static_cast<int64_t>(count), sums);
    }
    for (uint64_t p = 0; p < results; ++p) statistic[g * results + p] = sums[p].join();
  }
}

}  // namespace chorus::reference
