// SPDX-License-Identifier: Apache-2.0
// Cuts with ties, draws, ranks: see merge_sparsify.h. Ranks cost one sort per group and input, all else O(1) per element.
#include "reference/merge_sparsify.h"

#include <algorithm>

namespace chorus::reference {

uint64_t rank_bytes(int32_t n_inputs, uint64_t size) {
  return aligned(8 * size) + aligned(4 * size * static_cast<uint64_t>(n_inputs));
}

Sparsifier::Sparsifier(chorus_merge_sparsify kind, chorus_merge_cut_statistic statistic, int32_t n_inputs, const Chain &chain,
                       const SparsifyArgs &args, void *memory, uint64_t size)
    : kind_(kind),
      statistic_(statistic),
      n_inputs_(n_inputs),
      chain_(chain),
      args_(args),
      most_(size),
      sorted_(static_cast<uint64_t *>(memory)),
      ranks_(reinterpret_cast<uint32_t *>(static_cast<char *>(memory) + (memory != nullptr ? aligned(8 * size) : 0))) {}

void Sparsifier::rank(int32_t i) {
  std::sort(sorted_, sorted_ + size_);
  uint32_t *ranks = ranks_ + static_cast<uint64_t>(i) * most_;
  for (uint64_t r = 0; r < size_; ++r) ranks[sorted_[r] & 0xffffffffu] = static_cast<uint32_t>(r);
}

// Above the cut, or equal to it and among the first `ties`. Without ties none counts, of a statistic all.
bool Sparsifier::above(int32_t slot, double magnitude) {
  const uint32_t key = key_of(magnitude), edge = key_of(args_.cuts[slot]);
  if (key != edge) return key > edge;
  if (args_.ties == nullptr) return kind_ == CHORUS_SPARSIFY_STATISTIC_CUT;
  return seen_[slot]++ < args_.ties[slot];
}

void Sparsifier::keep(uint64_t j, uint64_t index, const double *deltas, bool *kept) {
  if (kind_ == CHORUS_SPARSIFY_NONE) return;
  if (kind_ == CHORUS_SPARSIFY_STATISTIC_CUT && statistic_ == CHORUS_CUT_VARIANCE) {
    if (!above(0, chain_.round(variance(deltas, kept, n_inputs_)))) std::fill(kept, kept + n_inputs_, false);
    return;
  }
  for (int32_t i = 0; i < n_inputs_; ++i) {
    if (!kept[i]) continue;
    switch (kind_) {
      case CHORUS_SPARSIFY_MAGNITUDE_CUT: kept[i] = above(i, deltas[i]); break;
      case CHORUS_SPARSIFY_BAND: {
        const bool over_lower = above(2 * i, deltas[i]), over_upper = above(2 * i + 1, deltas[i]);
        kept[i] = over_lower && !over_upper;
        break;
      }
      case CHORUS_SPARSIFY_BERNOULLI: kept[i] = drawn(args_.keys[i], index, admission(chain_.probability(args_.densities[i]))); break;
      case CHORUS_SPARSIFY_RANK: {
        const uint32_t rank = ranks_[static_cast<uint64_t>(i) * most_ + j];
        const double p = chain_.rank_probability(args_.densities[i], args_.epsilons[i], rank, size_);
        kept[i] = drawn(args_.keys[i], index, admission(p));
        break;
      }
      default: {
        const double scale = args_.cut_scales[group_ * static_cast<uint64_t>(n_inputs_) + static_cast<uint64_t>(i)];
        kept[i] = above(i, scale * deltas[i]);
      }
    }
  }
}

}  // namespace chorus::reference
