// SPDX-License-Identifier: Apache-2.0
// Several sums over one stream of items, in the order of docs/numerics.md, "Reductions": 32 lanes within blocks of 4096
// items, lanes and blocks joined pairwise. Blocks may be summed apart, so threads and batches change no bit.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "chorus/plugin.hpp"

namespace chorus::combine {

// The sums of one block.
class BlockSums {
 public:
  explicit BlockSums(size_t width) : lanes_(width) {}
  // Item `index` of the block brings `values` [width].
  void add(uint64_t index, const double *values) {
    for (size_t k = 0; k < lanes_.size(); ++k) lanes_[k][index % CHORUS_LANES] += values[k];
  }
  // The block's sums to `out` [width]; the block is empty again.
  void take(double *out) {
    for (size_t k = 0; k < lanes_.size(); ++k) {
      out[k] = plugin::join_pairwise(lanes_[k].data(), CHORUS_LANES);
      lanes_[k].fill(0.0);
    }
  }

 private:
  std::vector<std::array<double, CHORUS_LANES>> lanes_;
};

// The sums of a stream of any length.
class OrderedSums {
 public:
  explicit OrderedSums(size_t width) : block_(width), joined_(width), values_(width) {}
  size_t width() const { return joined_.size(); }
  uint64_t count() const { return count_; }

  void add(const double *values) {
    block_.add(count_ % CHORUS_BLOCK, values);
    if (++count_ % CHORUS_BLOCK == 0) flush(block_);
  }
  // The sums of a whole block that were made elsewhere. The last block of a stream may have been a short one.
  void add_block(const double *sums) {
    for (size_t k = 0; k < width(); ++k) joined_[k].add(sums[k]);
    count_ += CHORUS_BLOCK;
  }
  std::vector<double> total() const {
    OrderedSums copy = *this;
    if (count_ % CHORUS_BLOCK != 0) copy.flush(copy.block_);
    std::vector<double> out(width());
    for (size_t k = 0; k < width(); ++k) out[k] = copy.joined_[k].join();
    return out;
  }
  void clear() { *this = OrderedSums(width()); }

 private:
  void flush(BlockSums &block) {
    block.take(values_.data());
    for (size_t k = 0; k < width(); ++k) joined_[k].add(values_[k]);
  }

  BlockSums block_;
  std::vector<plugin::PairwiseStream<double>> joined_;
  std::vector<double> values_;
  uint64_t count_ = 0;
};

}  // namespace chorus::combine
