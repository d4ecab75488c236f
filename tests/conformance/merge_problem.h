// SPDX-License-Identifier: Apache-2.0
// merge.apply and merge.reduce calls as plain data, and their arithmetic as docs/numerics.md, "Merging",
// states it.
#pragma once
#include <cstdint>
#include <vector>

#include "conformance/backend.h"
#include "conformance/random.h"
#include "conformance/tensors.h"

namespace conformance {

struct MergeInput {
  chorus_dtype dtype = CHORUS_F32;
  std::vector<double> values;  // as stored; empty: absent
};

struct MergeProblem {
  std::vector<MergeInput> inputs;
  MergeInput base;  // empty: none
  chorus_merge_operand operand = CHORUS_OPERAND_X;
  chorus_merge_combine combine = CHORUS_MERGE_SUM;
  chorus_dtype output_dtype = CHORUS_F32;
  std::vector<double> weights;  // with coefficients the base's is the last
  double lambda = 1;
  bool add_base = false;
  uint64_t begin = 0, count = 0;

  bool has_base() const { return !base.values.empty(); }
};

MergeProblem random_merge(Random &random, uint64_t count);

// The stored bits of the elements [begin, begin + count) computed in pieces of `piece` elements (0: one
// piece).
std::vector<uint64_t> apply(Backend &backend, const MergeProblem &p, uint64_t piece = 0);
// By the rules, in f64.
std::vector<uint64_t> apply_by_rules(const MergeProblem &p);

// The Gram of the elements [begin, end), as f64 bits, upper triangle row by row.
std::vector<double> gram(Backend &backend, const MergeProblem &p, uint64_t begin, uint64_t end);
// By the rules: blocks, lanes, pairwise tree.
std::vector<double> gram_by_rules(const MergeProblem &p, uint64_t begin, uint64_t end);
// join() of "Reductions".
double join(std::vector<double> values);

}  // namespace conformance
