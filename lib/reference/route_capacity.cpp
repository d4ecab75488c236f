// SPDX-License-Identifier: Apache-2.0
// Experts of limited room: which slots are dropped beyond an expert's capacity, and experts that choose their tokens.
// Cost: one sort of T * k slots; O(E T log T) when experts choose.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "reference/route_random.h"
#include "reference/route_topk.h"

namespace chorus::reference {
namespace {

// Sorts `count` of `sorted` so that who comes first is served first; ties by index.
template <typename Before>
void sort_by(int32_t *sorted, int64_t count, const Before &before) {
  std::sort(sorted, sorted + count, [&](int32_t a, int32_t b) { return before(a, b) || (!before(b, a) && a < b); });
}

void sort_slots(RouteBatch &batch, int64_t count) {
  const int32_t k = batch.state.desc.k;
  const float *w = batch.weights, *priorities = batch.priorities;
  const uint32_t *draws = batch.draws;
  switch (batch.state.desc.drop) {
    case CHORUS_ROUTE_DROP_BY_SCORE:
      return sort_by(batch.sorted, count, [&](int32_t a, int32_t b) { return w[a] > w[b]; });
    case CHORUS_ROUTE_DROP_BY_CHOICE:
      return sort_by(batch.sorted, count, [&](int32_t a, int32_t b) { return a % k < b % k; });
    case CHORUS_ROUTE_DROP_BY_PRIORITY:
      return sort_by(batch.sorted, count, [&](int32_t a, int32_t b) {
        return a % k != b % k ? a % k < b % k : priorities[a / k] > priorities[b / k];
      });
    case CHORUS_ROUTE_DROP_AT_RANDOM:
      return sort_by(batch.sorted, count, [&](int32_t a, int32_t b) { return draws[a] > draws[b]; });
    default: return;  // by position: they lie so
  }
}

void draw_words(RouteBatch &batch) {
  const int32_t k = batch.state.desc.k;
  for (int64_t t = 0; t < batch.n_valid; ++t) {
    const RandomWords words(batch.args, t);
    for (int32_t j = 0; j < k; ++j) batch.draws[t * k + j] = words(kDropWords, j);
  }
}

// Puts expert e among the experts of token t, best key first; keys of one token decide alone.
void offer_expert(const RouteBatch &batch, int64_t t, int32_t e) {
  const int32_t k = batch.state.desc.k;
  int32_t *ids = batch.ids + t * k;
  const float *keys = batch.keys + batch.row_offset(t);
  int32_t at = k;
  for (; at > 0 && (ids[at - 1] < 0 || better(keys[e], keys[ids[at - 1]])); --at) {
    if (at < k) ids[at] = ids[at - 1];
  }
  if (at < k) ids[at] = e;
}

// Score of (token, expert), 0 where the logit is NaN.
float weight_of(const RouteBatch &batch, int64_t t, int32_t e) {
  const float score = batch.scores[batch.row_offset(t) + e];
  return is_nan(batch.keys[batch.row_offset(t) + e]) || is_nan(score) ? 0.0f : score;
}

void write_choice(const RouteBatch &batch, int32_t e, int64_t taken) {
  const chorus_tensor *tokens = batch.args.expert_tokens, *weights = batch.args.expert_weights;
  const float scale = static_cast<float>(batch.state.desc.scale);
  for (int64_t c = 0; tokens != nullptr && c < tokens->shape[1]; ++c) {
    put_integer(CHORUS_I32, row_of(*tokens, e), c, c < taken ? batch.sorted[c] : -1);
  }
  for (int64_t c = 0; weights != nullptr && c < weights->shape[1]; ++c) {
    store_f32(CHORUS_F32, row_of(*weights, e), c, c < taken ? weight_of(batch, batch.sorted[c], e) * scale : 0.0f);
  }
}

}  // namespace

int64_t capacity_of(const chorus_route_desc &d, int64_t n_valid) {
  if (d.capacity > 0) return d.capacity;
  if (d.capacity_factor == 0.0) return 0;
  const double exact = std::ceil(d.capacity_factor * static_cast<double>(n_valid * d.k) / static_cast<double>(d.n_experts));
  int64_t slots = exact < 0x1p31 ? static_cast<int64_t>(exact) : INT32_MAX;
  slots = std::max<int64_t>({slots, d.capacity_minimum, 1});
  const int64_t multiple = std::max<int64_t>(d.capacity_multiple, 1);
  return (slots + multiple - 1) / multiple * multiple;
}

void drop_slots(RouteBatch &batch) {
  const chorus_route_desc &d = batch.state.desc;
  if (d.drop == CHORUS_ROUTE_DROP_NONE || batch.capacity == 0) return;
  const int64_t n_slots = batch.n_valid * d.k;
  std::iota(batch.sorted, batch.sorted + n_slots, 0);
  if (d.drop == CHORUS_ROUTE_DROP_AT_RANDOM) draw_words(batch);
  sort_slots(batch, n_slots);
  std::fill(batch.cursor, batch.cursor + d.n_experts, 0);
  for (int64_t i = 0; i < n_slots; ++i) {
    const int32_t slot = batch.sorted[i];
    int32_t &id = batch.ids[slot];
    if (id < 0 || batch.cursor[id]++ < batch.capacity) continue;
    id = -1;
    batch.weights[slot] = 0.0f;
  }
}

void choose_tokens(RouteBatch &batch) {
  const chorus_route_desc &d = batch.state.desc;
  const int64_t taken = std::min(batch.capacity, batch.n_valid);
  for (int32_t e = 0; e < d.n_experts; ++e) {
    std::iota(batch.sorted, batch.sorted + batch.n_valid, 0);
    sort_by(batch.sorted, batch.n_valid, [&](int32_t a, int32_t b) {
      return better(batch.keys[batch.row_offset(a) + e], batch.keys[batch.row_offset(b) + e]);
    });
    for (int64_t c = 0; c < taken; ++c) offer_expert(batch, batch.sorted[c], e);
    write_choice(batch, e, taken);
  }
  for (int64_t t = 0; t < batch.n_valid; ++t) {
    for (int32_t j = 0; j < d.k; ++j) {
      const int32_t id = batch.ids[t * d.k + j];
      batch.weights[t * d.k + j] = id < 0 ? 0.0f : weight_of(batch, t, id);
    }
  }
}

}  // namespace chorus::reference
