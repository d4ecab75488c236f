// SPDX-License-Identifier: Apache-2.0
//
// The lists that engines' kernels want of a routing, from its ids and the slots sorted by expert: padded blocks, tokens of each
// expert, bitmap. Contract: docs/numerics.md, "Routing", "Lists". Cost: one pass over T * k slots each; a sort per expert for its
// tokens. Header-only, for backends in host memory.
#ifndef CHORUS_PLUGIN_ROUTE_LISTS_HPP_
#define CHORUS_PLUGIN_ROUTE_LISTS_HPP_

#include <algorithm>

#include "plugin.hpp"

namespace chorus::plugin {

// An i32 vector output, or none.
struct IntegerList {
  explicit IntegerList(const chorus_tensor *t)
      : data(t != nullptr ? static_cast<int32_t *>(t->data) : nullptr),
        stride(t != nullptr ? stride_of(*t, 0) : 0),
        size(t != nullptr ? t->shape[0] : 0) {}
  void put(int64_t i, int32_t value) const {
    if (data != nullptr) data[i * stride] = value;
  }
  // Elements from `begin` on.
  void fill_from(int64_t begin, int32_t value) const {
    for (int64_t i = begin; i < size; ++i) put(i, value);
  }
  int32_t *data;
  int64_t stride, size;
};

// What the lists are made of.
struct SortedSlots {
  const chorus_route_desc &desc;
  const chorus_route_args &args;
  const int32_t *ids;      // [T, k], -1: none
  const float *weights;    // [T, k] before `scale`; for expert lists alone
  const int32_t *offsets;  // [E + 1]
  int32_t *sorted;         // slots by expert, then by slot; write_expert_lists() sorts each expert's run again

  int32_t count_of(int32_t e) const { return offsets[e + 1] - offsets[e]; }
};

inline void write_blocks(const SortedSlots &s) {
  const IntegerList order(s.args.padded_order), experts(s.args.block_experts), blocks(s.args.n_blocks);
  const int64_t block = s.desc.block;
  int64_t place = 0;  // at each expert's begin a multiple of the block
  for (int32_t e = 0; e < s.desc.n_experts; ++e) {
    const int64_t count = s.count_of(e), padded = (count + block - 1) / block * block;
    for (int64_t b = 0; b < padded / block; ++b) experts.put(place / block + b, e);
    for (int64_t i = 0; i < padded; ++i) order.put(place + i, i < count ? s.sorted[s.offsets[e] + i] : -1);
    place += padded;
  }
  blocks.put(0, static_cast<int32_t>(place / block));
  order.fill_from(place, -1);
  experts.fill_from(place / block, -1);
}

// Tokens of each expert, highest weight first, ties by token.
inline void write_expert_lists(const SortedSlots &s) {
  const chorus_tensor *tokens = s.args.expert_tokens, *weights = s.args.expert_weights;
  const int32_t k = s.desc.k;
  const float scale = static_cast<float>(s.desc.scale);
  for (int32_t e = 0; e < s.desc.n_experts; ++e) {
    int32_t *slots = s.sorted + s.offsets[e];
    const int64_t count = s.count_of(e);
    std::sort(slots, slots + count, [&](int32_t a, int32_t b) {
      return s.weights[a] != s.weights[b] ? s.weights[a] > s.weights[b] : a < b;
    });
    for (int64_t c = 0; tokens != nullptr && c < tokens->shape[1]; ++c) {
      put_integer(CHORUS_I32, row_of(*tokens, e), c, c < count ? slots[c] / k : -1);
    }
    for (int64_t c = 0; weights != nullptr && c < weights->shape[1]; ++c) {
      store_f32(CHORUS_F32, row_of(*weights, e), c, c < count ? s.weights[slots[c]] * scale : 0.0f);
    }
  }
}

inline void write_bitmap(const SortedSlots &s) {
  const int32_t k = s.desc.k, bytes = (s.desc.n_experts + 7) / 8;
  for (int64_t t = 0; t < s.args.tokens; ++t) {
    auto *row = static_cast<uint8_t *>(row_of(*s.args.bitmap, t));
    std::fill(row, row + bytes, uint8_t{0});
    for (int32_t j = 0; j < k; ++j) {
      const int32_t id = s.ids[t * k + j];
      if (id >= 0) row[id / 8] = static_cast<uint8_t>(row[id / 8] | 1u << id % 8);
    }
  }
}

inline bool wants_blocks(const chorus_route_args &a) {
  return a.padded_order != nullptr || a.block_experts != nullptr || a.n_blocks != nullptr;
}
inline bool wants_expert_lists(const chorus_route_args &a) { return a.expert_tokens != nullptr || a.expert_weights != nullptr; }

}  // namespace chorus::plugin
#endif  // CHORUS_PLUGIN_ROUTE_LISTS_HPP_
