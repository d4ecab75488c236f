// SPDX-License-Identifier: Apache-2.0
// The lists of route.topk, from the ids alone: slots sorted by expert, padded blocks, tokens of each expert, bitmap, score
// sums. Cost: one counting sort over T * k slots; a sort per expert for its token list.
#include <algorithm>

#include "reference/route_topk.h"

namespace chorus::reference {
namespace {

// Counting sort of the slots by expert into `sorted`; leaves the exclusive offsets in `cursor`.
void sort_slots(RouteBatch &batch, int64_t n_slots) {
  const int32_t n = batch.state.desc.n_experts;
  int32_t *cursor = batch.cursor;
  std::fill(cursor, cursor + n + 1, 0);
  for (int64_t s = 0; s < n_slots; ++s) {
    if (batch.ids[s] >= 0) ++cursor[batch.ids[s] + 1];
  }
  for (int32_t e = 0; e < n; ++e) cursor[e + 1] += cursor[e];
  for (int64_t s = 0; s < n_slots; ++s) {
    const int32_t position = batch.ids[s] >= 0 ? cursor[batch.ids[s]]++ : -1;
    put_integer(batch.args.inverse, s, position);
    if (position >= 0) batch.sorted[position] = static_cast<int32_t>(s);
  }
  for (int32_t e = n; e > 0; --e) cursor[e] = cursor[e - 1];  // back to where each expert begins
  cursor[0] = 0;
}

void write_order(const RouteBatch &batch, int64_t n_slots) {
  const chorus_route_args &args = batch.args;
  const int32_t n = batch.state.desc.n_experts;
  for (int32_t e = 0; e < n; ++e) put_integer(args.counts, e, batch.cursor[e + 1] - batch.cursor[e]);
  for (int32_t e = 0; e <= n; ++e) put_integer(args.offsets, e, batch.cursor[e]);
  for (int64_t s = 0; s < n_slots; ++s) put_integer(args.order, s, s < batch.cursor[n] ? batch.sorted[s] : -1);
}

void write_blocks(const RouteBatch &batch) {
  const chorus_route_args &args = batch.args;
  const int64_t block = batch.state.desc.block;
  int64_t place = 0;  // at each expert's begin a multiple of the block
  for (int32_t e = 0; e < batch.state.desc.n_experts; ++e) {
    const int64_t count = batch.cursor[e + 1] - batch.cursor[e], padded = (count + block - 1) / block * block;
    for (int64_t b = 0; b < padded / block; ++b) put_integer(args.block_experts, place / block + b, e);
    for (int64_t i = 0; i < padded; ++i) {
      put_integer(args.padded_order, place + i, i < count ? batch.sorted[batch.cursor[e] + i] : -1);
    }
    place += padded;
  }
  put_integer(args.n_blocks, 0, place / block);
  const auto fill = [](const chorus_tensor *t, int64_t from) {
    for (int64_t i = from; t != nullptr && i < t->shape[0]; ++i) put_integer(t, i, -1);
  };
  fill(args.padded_order, place);
  fill(args.block_experts, place / block);
}

// Tokens of each expert, highest weight first. Sorts the runs of `sorted`, so it comes after what reads their order.
void write_expert_lists(const RouteBatch &batch) {
  const chorus_tensor *tokens = batch.args.expert_tokens, *weights = batch.args.expert_weights;
  const int32_t k = batch.state.desc.k;
  const float scale = static_cast<float>(batch.state.desc.scale);
  for (int32_t e = 0; e < batch.state.desc.n_experts; ++e) {
    int32_t *slots = batch.sorted + batch.cursor[e];
    const int64_t count = batch.cursor[e + 1] - batch.cursor[e];
    std::sort(slots, slots + count, [&](int32_t a, int32_t b) {
      return batch.weights[a] != batch.weights[b] ? batch.weights[a] > batch.weights[b] : a < b;
    });
    for (int64_t c = 0; tokens != nullptr && c < tokens->shape[1]; ++c) {
      put_integer(CHORUS_I32, row_of(*tokens, e), c, c < count ? slots[c] / k : -1);
    }
    for (int64_t c = 0; weights != nullptr && c < weights->shape[1]; ++c) {
      store_f32(CHORUS_F32, row_of(*weights, e), c, c < count ? batch.weights[slots[c]] * scale : 0.0f);
    }
  }
}

void write_bitmap(const RouteBatch &batch) {
  const int32_t k = batch.state.desc.k, bytes = (batch.state.desc.n_experts + 7) / 8;
  for (int64_t t = 0; t < batch.args.tokens; ++t) {
    auto *row = static_cast<uint8_t *>(row_of(*batch.args.bitmap, t));
    std::fill(row, row + bytes, uint8_t{0});
    for (int32_t j = 0; j < k; ++j) {
      const int32_t id = batch.ids[t * k + j];
      if (id >= 0) row[id / 8] = static_cast<uint8_t>(row[id / 8] | 1u << id % 8);
    }
  }
}

void write_score_sums(const RouteBatch &batch) {
  for (int32_t e = 0; e < batch.state.desc.n_experts; ++e) {
    put_float(batch.args.score_sums, e, sum_in_order<double>(batch.n_valid, [&](int64_t t) {
                const float score = batch.scores[batch.row_offset(t) + e];
                return is_nan(score) ? 0.0 : static_cast<double>(score);
              }));
  }
}

}  // namespace

void write_lists(RouteBatch &batch) {
  const chorus_route_args &args = batch.args;
  const int64_t n_slots = args.tokens * batch.state.desc.k;
  sort_slots(batch, n_slots);
  write_order(batch, n_slots);
  if (args.padded_order != nullptr || args.block_experts != nullptr || args.n_blocks != nullptr) write_blocks(batch);
  const bool wants_experts = args.expert_tokens != nullptr || args.expert_weights != nullptr;
  if (wants_experts && !experts_choose(batch.state.desc)) write_expert_lists(batch);
  if (args.bitmap != nullptr) write_bitmap(batch);
  if (args.score_sums != nullptr) write_score_sums(batch);
}

}  // namespace chorus::reference
