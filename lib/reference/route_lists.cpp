// SPDX-License-Identifier: Apache-2.0
// The lists of route.topk, from the ids alone: slots sorted by expert, padded blocks, tokens of each expert, bitmap, score
// sums. Cost: one counting sort over T * k slots; a sort per expert for its token list.
#include <algorithm>

#include "chorus/plugin_route_lists.hpp"
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
  const SortedSlots sorted{batch.state.desc, args, batch.ids, batch.weights, batch.cursor, batch.sorted};
  if (wants_blocks(args)) write_blocks(sorted);
  if (wants_expert_lists(args) && !experts_choose(batch.state.desc)) write_expert_lists(sorted);
  if (args.bitmap != nullptr) write_bitmap(sorted);
  if (args.score_sums != nullptr) write_score_sums(batch);
}

}  // namespace chorus::reference
