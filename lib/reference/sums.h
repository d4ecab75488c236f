// SPDX-License-Identifier: Apache-2.0
// The order of every reduction (docs/numerics.md, "Reductions"): blocks of 4096 elements, 32 virtual lanes that
// accumulate element by element, lanes and then blocks joined in the pairwise tree over their index.
#pragma once
#include <cstdint>

#include "chorus/plugin.h"

namespace chorus::reference {

// Joins count values in the tree ((0+1)+(2+3))+…: neighbours pairwise, level by level; an odd last one moves up as it is.
template <typename T>
T join_pairwise(T *values, int64_t count) {
  if (count == 0) return T{};
  for (; count > 1; count = (count + 1) / 2) {
    for (int64_t i = 0; 2 * i < count; ++i) {
      values[i] = 2 * i + 1 < count ? values[2 * i] + values[2 * i + 1] : values[2 * i];
    }
  }
  return values[0];
}

// Joins a stream of values in the same tree, with one slot per level: slot i holds a finished run of 2^i values.
template <typename T>
struct PairwiseStream {
  static constexpr int kLevels = 52;  // 2^52 blocks of 4096 elements
  T runs[kLevels];
  uint64_t count = 0;

  void add(T value) {
    int level = 0;
    for (uint64_t c = count; c & 1; c >>= 1) value = runs[level++] + value;
    runs[level] = value;
    ++count;
  }
  T join() const {
    T total{};
    bool first = true;
    for (int level = 0; count >> level != 0; ++level) {
      if ((count >> level & 1) == 0) continue;
      total = first ? runs[level] : runs[level] + total;
      first = false;
    }
    return total;
  }
};

// Sum of term(i), i in [0, count), count counted from the row's first element.
template <typename T, typename Term>
T sum_in_order(int64_t count, const Term &term) {
  PairwiseStream<T> blocks;
  for (int64_t begin = 0; begin < count; begin += CHORUS_BLOCK) {
    const int64_t end = begin + CHORUS_BLOCK < count ? begin + CHORUS_BLOCK : count;
    T lanes[CHORUS_LANES] = {};
    for (int64_t i = begin; i < end; ++i) lanes[i % CHORUS_LANES] += term(i);
    blocks.add(join_pairwise(lanes, CHORUS_LANES));
  }
  return blocks.join();
}

}  // namespace chorus::reference
