// SPDX-License-Identifier: Apache-2.0
// Calls of merge.apply and merge.reduce with all stages as plain data, run through a backend, and by the rules of
// docs/numerics.md, "Merging": ranks by full sorts, no counters, no histograms.
#pragma once
#include <cstdint>
#include <vector>

#include "conformance/backend.h"
#include "conformance/merge_problem.h"

namespace conformance {

struct StageProblem {
  MergeProblem merge;  // weights: [groups, n_inputs]
  chorus_merge_granularity granularity = CHORUS_PER_TENSOR;
  uint64_t rows = 0, columns = 0, row_stride = 0;
  chorus_merge_sparsify sparsify = CHORUS_SPARSIFY_NONE;
  chorus_merge_cut_statistic cut_statistic = CHORUS_CUT_VARIANCE;
  chorus_merge_rescale rescale = CHORUS_RESCALE_NONE;
  chorus_merge_consensus consensus = CHORUS_CONSENSUS_NONE;
  double divisor_floor = 0;
  std::vector<double> cuts, densities, rescales, epsilons, cut_scales, unique_scales;
  std::vector<uint64_t> ties, keys;
  // Of merge.reduce.
  chorus_merge_statistic statistic = CHORUS_STATISTIC_GRAM;
  chorus_merge_predicate predicate = CHORUS_PREDICATE_ALL;
  double epsilon = 0;
  uint32_t prefix_bits = 0;
  std::vector<uint32_t> prefixes;
  std::vector<double> row_softmax;

  size_t n() const { return merge.inputs.size(); }
  uint64_t groups() const;
  uint64_t group_size() const;
  // Where element j of a group lies, which is its index in the tensor too.
  uint64_t at(uint64_t group, uint64_t j) const;
};

StageProblem random_stages(Random &random);
// Adds a random statistic that suits the stages of `p`.
void random_statistic(Random &random, StageProblem &p);

// The stored bits of merge.apply; elements between the columns of a band are left out.
std::vector<uint64_t> apply(Backend &backend, const StageProblem &p);
std::vector<uint64_t> apply_by_rules(const StageProblem &p);

// The statistic as its u64 words (f64 bits or counts).
std::vector<uint64_t> reduce(Backend &backend, const StageProblem &p);
std::vector<uint64_t> reduce_by_rules(const StageProblem &p);

// Elements [begin, end) of a problem per tensor, as a problem of its own that begins there.
StageProblem piece_of(const StageProblem &p, uint64_t begin, uint64_t end);

// Key of a magnitude, by the formats of the tests.
uint32_t magnitude_key(double x);

}  // namespace conformance
