// SPDX-License-Identifier: Apache-2.0
// Counts of a piece in u64: histograms of keys, and how many models share an element. Order-free. Cost: one pass.
#include "reference/merge_reduce.h"

namespace chorus::reference {
namespace {

void count_variance(const ReduceState &state, const chorus_merge_reduce_args &args, const Terms &terms, uint64_t *bins) {
  bool any = false;
  for (int32_t i = 0; i < state.desc.n_inputs; ++i) any |= terms.satisfied[i];
  if (!any) return;
  const uint32_t key = key_of(Chain(state.desc).round(variance(terms.values, terms.satisfied, state.desc.n_inputs)));
  const bool counts = state.desc.predicate != CHORUS_PREDICATE_PREFIX || args.prefix_bits == 0 ||
                      key >> (31 - args.prefix_bits) == args.prefixes[0];
  if (counts) ++bins[bin_of(key, args.prefix_bits)];
}

void count_sharers(int32_t n, const Terms &terms, uint64_t *counts) {
  int32_t sharers = 0;
  for (int32_t i = 0; i < n; ++i) sharers += terms.satisfied[i];
  for (int32_t i = 0; i < n; ++i) {
    if (terms.satisfied[i]) ++counts[int64_t{i} * n + (sharers - 1)];
  }
}

}  // namespace

void reduce_counts(const ReduceState &state, const chorus_merge_reduce_args &args, Walk *walk) {
  const int32_t n = state.desc.n_inputs;
  auto *counts = static_cast<uint64_t *>(args.statistic);
  const Groups &groups = walk->groups();
  Terms terms;
  for (uint64_t g = 0; g < groups.count; ++g) {
    walk->begin_group(g);
    for (uint64_t j = 0; j < groups.size; ++j) {
      walk->element(j, &terms);
      if (state.desc.statistic == CHORUS_STATISTIC_VARIANCE_HISTOGRAM) {
        count_variance(state, args, terms, counts);
      } else if (state.desc.statistic == CHORUS_STATISTIC_COUNT) {
        count_sharers(n, terms, counts);
      } else {
        for (int32_t i = 0; i < n; ++i) {
          if (terms.satisfied[i]) ++counts[uint64_t{65536} * static_cast<uint64_t>(i) + bin_of(key_of(terms.values[i]), args.prefix_bits)];
        }
      }
    }
  }
}

}  // namespace chorus::reference
