// SPDX-License-Identifier: Apache-2.0
// The tokens of a vocabulary sorted by their bytes: a node of the trie is a run of them, so the tree itself needs no memory.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "chorus/bytes.h"
#include "runtime/context.h"
#include "runtime/device.h"

namespace chorus::combine {

using ByteMasses = std::array<double, CHORUS_BYTE_OUTCOMES>;

// Tokens [begin, end) of the sorted order, which share their first `depth` bytes and are longer.
struct TrieNode {
  size_t begin = 0, end = 0, depth = 0;
};

class ByteTrie {
 public:
  // `bytes_of(id)`: "" for a token that is left out.
  ByteTrie(std::shared_ptr<const Context> context, size_t n_ids, const std::function<std::string_view(size_t)> &bytes_of,
           const int32_t *end_ids, size_t end_count);

  size_t n_ids() const { return n_ids_; }
  const Context &context() const { return *context_; }
  const Device &host() const { return *host_; }
  TrieNode root() const { return {0, order_.size(), 0}; }
  int32_t id(size_t place) const { return order_[place]; }

  // Log-probs of the tokens to probabilities in sorted order, and the end's probability to `end`.
  void sort_probabilities(const double *log_probs, double *sorted, double *end) const;
  // Adds scale * the mass of each next byte under `node`; sums as docs/numerics.md, "Reductions".
  void add_masses(const TrieNode &node, const double *sorted, double scale, ByteMasses *masses) const;
  // Below `node` by `byte`: *ending, tokens that end there, and the node of the longer ones.
  TrieNode child(const TrieNode &node, uint8_t byte, TrieNode *ending) const;

 private:
  std::string_view bytes_at(size_t place) const {
    return std::string_view(text_).substr(starts_[place], starts_[place + 1] - starts_[place]);
  }
  size_t first_above(const TrieNode &node, uint8_t byte) const;

  std::shared_ptr<const Context> context_;
  DevicePtr host_;
  size_t n_ids_;
  std::vector<int32_t> order_, end_ids_;
  std::string text_;            // of the tokens, in sorted order
  std::vector<size_t> starts_;  // [tokens + 1]
};

// Normalised logarithms of masses.
ByteMasses log_shares(const ByteMasses &masses);

}  // namespace chorus::combine
