// SPDX-License-Identifier: Apache-2.0
// Exact selection of the k largest magnitudes without a sort: a histogram of the upper 16 bits of their keys, one of the 15
// below in the bin that holds the k-th, then per piece the count of elements equal to the cut. O(n) in three passes.
#include <algorithm>
#include <bit>

#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

constexpr size_t kBins = 65536;

// The bin, from the top, in which the wanted element lies; leaves in `wanted` its rank within it. kBins: there is none.
size_t find_bin(const uint64_t *bins, uint64_t *wanted) {
  if (*wanted == 0) return kBins;
  for (size_t bin = kBins; bin-- > 0;) {
    if (bins[bin] >= *wanted) return bin;
    *wanted -= bins[bin];
  }
  *wanted = 0;  // fewer elements than wanted: an input that is absent
  return kBins;
}

void take_upper(const Statistic &histogram, Selection *selection) {
  selection->prefixes.assign(selection->wanted.size(), 0);
  for (size_t i = 0; i < selection->wanted.size(); ++i) {
    const size_t bin = find_bin(histogram.counts.data() + i * kBins, &selection->wanted[i]);
    selection->prefixes[i] = static_cast<uint32_t>(std::min(bin, kBins - 1));
  }
}

void take_lower(const Statistic &histogram, Selection *selection) {
  selection->cuts.assign(selection->wanted.size(), kInfinity);
  for (size_t i = 0; i < selection->wanted.size(); ++i) {
    const size_t bin = find_bin(histogram.counts.data() + i * kBins, &selection->wanted[i]);
    if (bin < kBins) selection->cuts[i] = std::bit_cast<float>(selection->prefixes[i] << 15 | static_cast<uint32_t>(bin));
  }
}

// Of the elements equal to the cut, the first ones in element order.
void share_ties(const Statistic &count, Selection *selection) {
  for (const std::vector<uint64_t> &piece : count.piece_counts) {
    std::vector<uint64_t> &ties = selection->ties.emplace_back();
    for (size_t i = 0; i < selection->wanted.size(); ++i) {
      uint64_t equal = 0;  // whoever shares the element
      for (size_t m = 0; m < count.n; ++m) equal += piece[i * count.n + m];
      ties.push_back(std::min(equal, selection->wanted[i]));
      selection->wanted[i] -= ties.back();
    }
  }
}

}  // namespace

void add_order_statistics(Program *program, Reduction reduction, const std::vector<uint64_t> &from_top) {
  reduction.statistic = CHORUS_STATISTIC_HISTOGRAM;
  for (const uint64_t wanted : from_top) program->coefficients.selections.push_back({{wanted}, {}, {}, {}});
  program->passes.push_back({reduction, [](const Statistic &s, Coefficients *c) {
                               for (Selection &selection : c->selections) take_upper(s, &selection);
                             }});
  reduction.predicate = CHORUS_PREDICATE_PREFIX;
  for (reduction.cut = 0; reduction.cut < from_top.size(); ++reduction.cut) {
    program->passes.push_back({reduction, [number = reduction.cut](const Statistic &s, Coefficients *c) {
                                 take_lower(s, &c->selections[number]);
                               }});
  }
}

void add_selection(Program *program, size_t number, std::vector<uint64_t> wanted, bool of_variance) {
  program->coefficients.selections.resize(std::max(program->coefficients.selections.size(), number + 1));
  program->coefficients.selections[number].wanted = std::move(wanted);
  Reduction reduction;
  reduction.operand = selecting_operand(program->stages);
  reduction.statistic = of_variance ? CHORUS_STATISTIC_VARIANCE_HISTOGRAM : CHORUS_STATISTIC_HISTOGRAM;
  reduction.cut = number;
  const auto add = [&](void (*step)(const Statistic &, Selection *)) {
    program->passes.push_back({reduction, [=](const Statistic &s, Coefficients *c) { step(s, &c->selections[number]); }});
  };
  add(take_upper);
  reduction.predicate = CHORUS_PREDICATE_PREFIX;
  add(take_lower);
  reduction.predicate = CHORUS_PREDICATE_TIE;
  reduction.statistic = CHORUS_STATISTIC_COUNT;
  if (of_variance) reduction.sparsify = CHORUS_SPARSIFY_STATISTIC_CUT;
  add(share_ties);
}

}  // namespace chorus::merge
