// SPDX-License-Identifier: Apache-2.0
// One token of route.topk: logits with noise, scores, keys, the experts chosen by them, and their weights.
// Cost per token: O(E) scores, O(E * k) worst-case selection.
#include <algorithm>
#include <cmath>

#include "reference/route_random.h"
#include "reference/route_topk.h"

namespace chorus::reference {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// x + (noise * scale) * normal; the noisy logits take the logits' place everywhere.
void add_noise(const RouteBatch &batch, int64_t t, float *x) {
  const chorus_route_desc &d = batch.state.desc;
  const RandomWords words(batch.args, t);
  const auto *scales =
      batch.args.noise_scales != nullptr ? static_cast<const float *>(row_of(*batch.args.noise_scales, t)) : nullptr;
  for (int32_t e = 0; e < d.n_experts; ++e) {
    float deviation = static_cast<float>(d.noise);
    if (scales != nullptr) deviation = deviation * scales[e];
    x[e] = x[e] + deviation * chorus_exact_normal(words(kNoiseWords, e));
  }
}

// The k best experts that `competes` lets in, best first; with groups, only those of the best `topk_groups` groups.
template <typename Competes>
Best select(const chorus_route_desc &d, const float *keys, const Competes &competes) {
  Best best{d.k};
  const auto offer_range = [&](int32_t begin, int32_t end) {
    for (int32_t e = begin; e < end; ++e) {
      if (competes(e)) best.offer(e, keys[e]);
    }
  };
  if (!has_groups(d)) {
    offer_range(0, d.n_experts);
    return best;
  }
  const int32_t size = d.n_experts / d.n_groups;
  Best groups{d.topk_groups};
  for (int32_t g = 0; g < d.n_groups; ++g) groups.offer(g, group_score(d, keys, g * size, (g + 1) * size));
  std::sort(groups.ids, groups.ids + groups.count);  // offer() breaks ties by arrival
  for (int32_t i = 0; i < groups.count; ++i) offer_range(groups.ids[i] * size, (groups.ids[i] + 1) * size);
  return best;
}

// The second expert drawn from the softmax of the others: the highest x + Gumbel noise (Maddison et al., 2014).
int32_t gumbel_second(const RouteBatch &batch, int64_t t, const float *x, int32_t first) {
  const RandomWords words(batch.args, t);
  Best best{1};
  for (int32_t e = 0; e < batch.state.desc.n_experts; ++e) {
    if (e == first) continue;
    const float u = chorus_exact_uniform(words(kSecondWords, e));
    best.offer(e, x[e] - chorus_exact_log(-chorus_exact_log(u)));
  }
  return best.ids[0];
}

// Ids that come from outside: out of range, or already in the row, they are no expert.
void take_ids(const RouteBatch &batch, int64_t t, int32_t *ids) {
  const RouteState &state = batch.state;
  const int32_t k = state.desc.k;
  const auto id_at = [&](int32_t j) -> int64_t {
    if (state.desc.selection == CHORUS_ROUTE_GIVEN) {
      return integer_at(dtype_of(*batch.args.given_ids), row_of(*batch.args.given_ids, t), j);
    }
    const int64_t token = integer_at(*batch.args.token_ids, t);
    return token < 0 || token >= state.table_rows ? -1 : state.table[token * k + j];
  };
  for (int32_t j = 0; j < k; ++j) {
    const int64_t id = id_at(j);
    const bool is_expert = id >= 0 && id < state.desc.n_experts && std::find(ids, ids + j, id) == ids + j;
    ids[j] = is_expert ? static_cast<int32_t>(id) : -1;
  }
}

// GShard's and NLLB's chance of the second expert; `share` is what is doubled.
void drop_second(const RouteBatch &batch, int64_t t, int32_t *ids, float *w, float share) {
  const float u = chorus_exact_uniform(RandomWords(batch.args, t)(kSecondWords, 0));
  if (u < 2.0f * share) return;
  ids[1] = -1;
  w[1] = 0.0f;
}

}  // namespace

void score_token(RouteBatch &batch, int64_t t) {
  const chorus_route_desc &d = batch.state.desc;
  const int64_t at = batch.row_offset(t);
  float *x = batch.logits, *scores = batch.scores + at, *keys = batch.keys + at;
  const void *row = row_of(*batch.args.logits, t);
  for (int32_t e = 0; e < d.n_experts; ++e) keys[e] = load_f32(d.logits_dtype, row, e);
  if (d.noise != 0.0) add_noise(batch, t, keys);
  const float temperature = static_cast<float>(d.temperature);
  for (int32_t e = 0; e < d.n_experts; ++e) x[e] = keys[e] / temperature;
  const bool sums = (d.outputs & CHORUS_ROUTE_OUT_SCORE_SUMS) != 0;
  if (score_first(d) || sums) score_all(d.score, x, d.n_experts, scores);
  if (!batch.state.ranks_logits) std::copy(scores, scores + d.n_experts, keys);
  if (d.has_bias != 0) {
    for (int32_t e = 0; e < d.n_experts; ++e) keys[e] = keys[e] + f32_at(*batch.args.bias, e);
  }
}

void select_experts(RouteBatch &batch, int64_t t) {
  const chorus_route_desc &d = batch.state.desc;
  int32_t *ids = batch.ids + t * d.k;
  if (d.selection == CHORUS_ROUTE_GIVEN || d.selection == CHORUS_ROUTE_HASH_TABLE) return take_ids(batch, t, ids);
  const float *scores = batch.scores + batch.row_offset(t), *keys = batch.keys + batch.row_offset(t);
  const bool positive = d.selection == CHORUS_ROUTE_POSITIVE;
  const Best best = select(d, keys, [&](int32_t e) { return !positive || scores[e] > 0.0f; });
  std::copy(best.ids, best.ids + best.count, ids);
  std::fill(ids + best.count, ids + d.k, -1);
  if (d.selection == CHORUS_ROUTE_GUMBEL_SECOND) ids[1] = gumbel_second(batch, t, batch.logits, ids[0]);
}

void weigh_token(RouteBatch &batch, int64_t t) {
  const chorus_route_desc &d = batch.state.desc;
  int32_t *ids = batch.ids + t * d.k;
  float *w = batch.weights + t * d.k;
  const float *scores = batch.scores + batch.row_offset(t);
  float x[kRouteMaxSlots];
  for (int32_t j = 0; j < d.k; ++j) x[j] = ids[j] < 0 ? kNaN : batch.logits[ids[j]];
  if (!score_first(d)) score_all(d.score, x, d.k, w);
  for (int32_t j = 0; j < d.k; ++j) {
    if (score_first(d) && ids[j] >= 0) w[j] = scores[ids[j]];
    if (is_nan(x[j])) w[j] = 0.0f;
  }
  batch.priorities[t] = *std::max_element(w, w + d.k);
  if (d.selection == CHORUS_ROUTE_RANDOM_SECOND_RAW) drop_second(batch, t, ids, w, w[1]);
  const float share = d.selection == CHORUS_ROUTE_RANDOM_SECOND ? w[1] / (w[0] + w[1]) : 0.0f;
  if (d.renormalise_last == 0) renormalise(d, w);
  if (d.selection == CHORUS_ROUTE_RANDOM_SECOND) drop_second(batch, t, ids, w, share);
}

}  // namespace chorus::reference
