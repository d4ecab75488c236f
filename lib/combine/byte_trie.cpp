// SPDX-License-Identifier: Apache-2.0
// Sorting tokens and walking the runs.
#include "combine/byte_trie.h"

#include <algorithm>
#include <cmath>

#include "chorus/plugin.hpp"
#include "runtime/error.h"

namespace chorus::combine {

ByteTrie::ByteTrie(std::shared_ptr<const Context> context, size_t n_ids,
                   const std::function<std::string_view(size_t)> &bytes_of, const int32_t *end_ids, size_t end_count)
    : context_(std::move(context)), host_(find_device(context_, "reference")), n_ids_(n_ids) {
  for (size_t k = 0; k < end_count; ++k) {
    if (end_ids[k] < 0 || static_cast<size_t>(end_ids[k]) >= n_ids) {
      fail(CHORUS_OUT_OF_RANGE, "end_ids[{}] is {}; there are {} ids", k, end_ids[k], n_ids);
    }
    end_ids_.push_back(end_ids[k]);
  }
  std::ranges::sort(end_ids_);
  end_ids_.erase(std::unique(end_ids_.begin(), end_ids_.end()), end_ids_.end());
  for (size_t id = 0; id < n_ids; ++id) {
    const auto token = static_cast<int32_t>(id);
    if (!bytes_of(id).empty() && !std::ranges::binary_search(end_ids_, token)) order_.push_back(token);
  }
  if (order_.empty()) fail(CHORUS_INVALID_ARGUMENT, "no token has bytes; a byte trie needs at least one");
  // string_view compares bytes as unsigned, and what is shorter first. Ids break ties.
  std::ranges::stable_sort(order_, {}, [&](int32_t id) { return bytes_of(static_cast<size_t>(id)); });
  starts_.push_back(0);
  for (const int32_t id : order_) {
    text_ += bytes_of(static_cast<size_t>(id));
    starts_.push_back(text_.size());
  }
}

void ByteTrie::sort_probabilities(const double *log_probs, double *sorted, double *end) const {
  for (size_t place = 0; place < order_.size(); ++place) sorted[place] = std::exp(log_probs[order_[place]]);
  *end = 0;
  for (const int32_t id : end_ids_) *end += std::exp(log_probs[id]);
}

void ByteTrie::add_masses(const TrieNode &node, const double *sorted, double scale, ByteMasses *masses) const {
  for (size_t begin = node.begin; begin < node.end;) {
    const auto byte = static_cast<uint8_t>(bytes_at(begin)[node.depth]);
    const size_t end = first_above({begin, node.end, node.depth}, byte);
    (*masses)[byte] += scale * plugin::sum_in_order<double>(static_cast<int64_t>(end - begin), [&](int64_t i) {
      return sorted[begin + static_cast<size_t>(i)];
    });
    begin = end;
  }
}

// The first token of the node whose byte there is higher than `byte`.
size_t ByteTrie::first_above(const TrieNode &node, uint8_t byte) const {
  size_t low = node.begin, high = node.end;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (static_cast<uint8_t>(bytes_at(middle)[node.depth]) > byte) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

TrieNode ByteTrie::child(const TrieNode &node, uint8_t byte, TrieNode *ending) const {
  const size_t begin = byte == 0 ? node.begin : first_above(node, static_cast<uint8_t>(byte - 1));
  const size_t end = first_above(node, byte), depth = node.depth + 1;
  size_t longer = begin;  // tokens that end here come first
  while (longer < end && bytes_at(longer).size() == depth) ++longer;
  *ending = {begin, longer, depth};
  return {longer, end, depth};
}

ByteMasses log_shares(const ByteMasses &masses) {
  double total = 0;
  for (const double mass : masses) total += mass;
  ByteMasses out;
  for (size_t b = 0; b < masses.size(); ++b) out[b] = std::log(masses[b]) - (total > 0 ? std::log(total) : 0.0);
  return out;
}

}  // namespace chorus::combine
