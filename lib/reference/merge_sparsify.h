// SPDX-License-Identifier: Apache-2.0
// The sparsify stage (docs/numerics.md, "Merging"): which inputs an element keeps. One pass over the elements in order.
#pragma once
#include "chorus/plugin_merge.hpp"
#include "reference/backend.h"
#include "reference/merge_chain.h"

namespace chorus::reference {

// Ranks of a group's magnitudes, 0 the smallest, equal ones by position. Memory: rank_bytes(n, size).
uint64_t rank_bytes(int32_t n_inputs, uint64_t size);

class Sparsifier {
 public:
  // `memory` is used with CHORUS_SPARSIFY_RANK alone, for groups of up to `size` elements.
  Sparsifier(chorus_merge_sparsify kind, chorus_merge_cut_statistic statistic, int32_t n_inputs, const Chain &chain,
             const SparsifyArgs &args, void *memory, uint64_t size);

  // Before the elements of a group: its size, and the magnitudes of input i by magnitude(i, j) when ranks are needed.
  template <typename Magnitude>
  void begin_group(uint64_t group, uint64_t size, const Magnitude &magnitude) {
    group_ = group;
    size_ = size;
    if (kind_ != CHORUS_SPARSIFY_RANK) return;
    for (int32_t i = 0; i < n_inputs_; ++i) {
      for (uint64_t j = 0; j < size; ++j) sorted_[j] = uint64_t{key_of(magnitude(i, j))} << 32 | j;
      rank(i);
    }
  }

  // Clears kept[i] where input i does not keep element j of the group, `index` of the tensor. kept says who is present.
  void keep(uint64_t j, uint64_t index, const double *deltas, bool *kept);

 private:
  void rank(int32_t i);
  bool above(int32_t slot, double magnitude);

  chorus_merge_sparsify kind_;
  chorus_merge_cut_statistic statistic_;
  int32_t n_inputs_;
  Chain chain_;
  SparsifyArgs args_;
  uint64_t group_ = 0, size_ = 0, most_;
  uint64_t *sorted_;
  uint32_t *ranks_;  // [n_inputs, most_]
  uint64_t seen_[2 * CHORUS_MERGE_MAX_INPUTS] = {};  // elements equal to each cut so far
};

}  // namespace chorus::reference
