// SPDX-License-Identifier: Apache-2.0
//
// What backends that implement route.topk share: which descriptors are whole, and the scalar arithmetic of scores, ranks
// and weights, each operation IEEE binary32 in written order. Contract: docs/numerics.md, "Routing". Header-only.
#ifndef CHORUS_PLUGIN_ROUTE_HPP_
#define CHORUS_PLUGIN_ROUTE_HPP_

#include <algorithm>
#include <cmath>
#include <limits>

#include "exact_math.h"
#include "plugin.hpp"

namespace chorus::plugin {

inline constexpr int32_t kRouteMaxExperts = 8192;
inline constexpr int32_t kRouteMaxSlots = 64;
inline constexpr float kRouteInfinity = std::numeric_limits<float>::infinity();

inline bool has_groups(const chorus_route_desc &d) { return d.n_groups > 1; }

inline bool experts_choose(const chorus_route_desc &d) { return d.selection == CHORUS_ROUTE_EXPERTS_CHOOSE; }

// Where the score is strictly monotone its rounding must not decide: rank the logits (DESIGN 3a.4). An expert that chooses
// compares tokens, and a softmax is monotone within a token only.
inline bool ranks_logits(const chorus_route_desc &d) {
  if (d.order == CHORUS_ROUTE_TOPK_THEN_SCORE) return true;
  if (experts_choose(d) && d.score == CHORUS_ROUTE_SOFTMAX) return false;
  const bool sums_scores = has_groups(d) && d.group_score == CHORUS_ROUTE_GROUP_TOP_SUM;
  return d.has_bias == 0 && !sums_scores && d.score != CHORUS_ROUTE_RELU;
}

// ---- Scores ----

// softmax of `count` values. An infinite maximum is shared equally by the values equal to it; NaN gets 0.
inline void softmax(const float *x, int32_t count, float *out) {
  float top = -kRouteInfinity;
  for (int32_t i = 0; i < count; ++i) top = x[i] > top ? x[i] : top;
  if (std::isinf(top)) {
    int32_t equal = 0;
    for (int32_t i = 0; i < count; ++i) equal += x[i] == top;
    const float share = 1.0f / static_cast<float>(equal);
    for (int32_t i = 0; i < count; ++i) out[i] = x[i] == top ? share : 0.0f;
    return;
  }
  for (int32_t i = 0; i < count; ++i) out[i] = is_nan(x[i]) ? 0.0f : chorus_exact_exp(x[i] - top);
  const float sum = sum_in_order<float>(count, [&](int64_t i) { return out[i]; });
  for (int32_t i = 0; i < count; ++i) out[i] = out[i] / sum;
}

inline float score_of(chorus_route_score score, float x) {
  switch (score) {
    case CHORUS_ROUTE_SIGMOID: return chorus_exact_sigmoid(x);
    case CHORUS_ROUTE_SQRT_SOFTPLUS: return std::sqrt(chorus_exact_softplus(x));
    case CHORUS_ROUTE_RELU: return x < 0.0f ? 0.0f : x;
    default: return x;
  }
}

inline void score_all(chorus_route_score score, const float *x, int32_t count, float *out) {
  if (score == CHORUS_ROUTE_SOFTMAX) return softmax(x, count, out);
  for (int32_t i = 0; i < count; ++i) out[i] = score_of(score, x[i]);
}

// ---- Selection ----

// Strictly better: higher, NaN below everything. Equal keys keep their order, so the lower index wins.
inline bool better(float a, float b) { return a > b || (is_nan(b) && !is_nan(a)); }

// Keeps the best `limit` indices in `ids`, best first, by insertion of indices in ascending order.
struct Best {
  int32_t limit;
  int32_t count = 0;
  int32_t ids[kRouteMaxSlots] = {};
  float keys[kRouteMaxSlots] = {};

  void offer(int32_t id, float key) {
    if (count == limit && !better(key, keys[count - 1])) return;
    int32_t at = count < limit ? count++ : count - 1;
    for (; at > 0 && better(key, keys[at - 1]); --at) {
      ids[at] = ids[at - 1];
      keys[at] = keys[at - 1];
    }
    ids[at] = id;
    keys[at] = key;
  }
};

// Score of the group [begin, end): its best key, or the sum of its best `group_top` keys in descending order.
inline float group_score(const chorus_route_desc &d, const float *keys, int32_t begin, int32_t end) {
  Best best{d.group_score == CHORUS_ROUTE_GROUP_MAX ? 1 : std::min({d.group_top, end - begin, kRouteMaxSlots})};
  for (int32_t e = begin; e < end; ++e) best.offer(e, keys[e]);
  float sum = best.keys[0];
  for (int32_t i = 1; i < best.count; ++i) sum = sum + best.keys[i];
  return sum;
}

// ---- Weights ----

// w / (sum + eps) or w / max(sum, eps). Infinite weights share 1 equally; a quotient that is NaN (0 / 0) is 0.
inline void renormalise(const chorus_route_desc &d, float *w) {
  if (d.renormalise == CHORUS_ROUTE_RENORMALISE_NONE) return;
  const auto infinite = std::count(w, w + d.k, kRouteInfinity);
  if (infinite > 0) {
    for (int32_t j = 0; j < d.k; ++j) w[j] = w[j] == kRouteInfinity ? 1.0f / static_cast<float>(infinite) : 0.0f;
    return;
  }
  float lanes[CHORUS_LANES] = {};
  for (int32_t j = 0; j < d.k; ++j) lanes[j % CHORUS_LANES] += w[j];
  const float sum = join_pairwise(lanes, CHORUS_LANES);
  const float epsilon = static_cast<float>(d.epsilon);
  const float clamped = sum < epsilon ? epsilon : sum;
  const float divisor = d.renormalise == CHORUS_ROUTE_RENORMALISE_SUM ? sum + epsilon : clamped;
  for (int32_t j = 0; j < d.k; ++j) {
    w[j] = w[j] / divisor;
    if (is_nan(w[j])) w[j] = 0.0f;
  }
}

// ---- What is supported: 0 with the reason in `why`, or 1 ----

// Sizes, dtypes, score, groups and weights alone.
inline int32_t check_route_fields(const chorus_route_desc &d, char *why, size_t why_bytes) {
  if (d.n_experts < 1 || d.n_experts > kRouteMaxExperts)
    return refuse(why, why_bytes, "n_experts is %d; supported: 1 to %d", d.n_experts, kRouteMaxExperts);
  const int32_t most = std::min(kRouteMaxSlots, d.n_experts);
  if (d.k < 1 || d.k > most) return refuse(why, why_bytes, "k is %d; supported: 1 to %d", d.k, most);
  if (d.max_tokens < 0 || d.max_tokens > INT32_MAX / d.k)
    return refuse(why, why_bytes, "max_tokens is %lld; supported: 0 to %d, so that slots fit i32",
                  static_cast<long long>(d.max_tokens), INT32_MAX / d.k);
  if (d.logits_dtype != CHORUS_F32 && d.logits_dtype != CHORUS_F16 && d.logits_dtype != CHORUS_BF16)
    return refuse(why, why_bytes, "logits_dtype is 0x%x; supported: f32, f16, bf16", d.logits_dtype);
  if (d.ids_dtype != CHORUS_I32 && d.ids_dtype != CHORUS_I64)
    return refuse(why, why_bytes, "ids_dtype is 0x%x; supported: i32, i64", d.ids_dtype);
  if (d.weights_dtype != CHORUS_F32 && d.weights_dtype != CHORUS_BF16)
    return refuse(why, why_bytes, "weights_dtype is 0x%x; supported: f32, bf16", d.weights_dtype);
  if (d.score < CHORUS_ROUTE_SOFTMAX || d.score > CHORUS_ROUTE_RELU)
    return refuse(why, why_bytes, "score is %d; supported: softmax, sigmoid, sqrt-softplus, identity, relu (0 to 4)", d.score);
  if (d.order != CHORUS_ROUTE_SCORE_THEN_TOPK && d.order != CHORUS_ROUTE_TOPK_THEN_SCORE)
    return refuse(why, why_bytes, "order is %d; supported: score-then-topk, topk-then-score (0, 1)", d.order);
  if (has_groups(d)) {
    if (d.n_experts % d.n_groups != 0)
      return refuse(why, why_bytes, "n_groups is %d; supported: a divisor of n_experts (%d)", d.n_groups, d.n_experts);
    if (d.topk_groups < 1 || d.topk_groups > std::min(d.n_groups, kRouteMaxSlots) ||
        int64_t{d.topk_groups} * (d.n_experts / d.n_groups) < d.k)
      return refuse(why, why_bytes, "topk_groups is %d; supported: 1 to %d, holding at least k = %d experts", d.topk_groups,
                    std::min(d.n_groups, kRouteMaxSlots), d.k);
    if (d.group_score != CHORUS_ROUTE_GROUP_MAX && d.group_score != CHORUS_ROUTE_GROUP_TOP_SUM)
      return refuse(why, why_bytes, "group_score is %d; supported: max, top-sum (0, 1)", d.group_score);
    if (d.group_score == CHORUS_ROUTE_GROUP_TOP_SUM && (d.group_top < 1 || d.group_top > kRouteMaxSlots))
      return refuse(why, why_bytes, "group_top is %d; supported: 1 to %d", d.group_top, kRouteMaxSlots);
  }
  if (d.renormalise < CHORUS_ROUTE_RENORMALISE_NONE || d.renormalise > CHORUS_ROUTE_RENORMALISE_CLAMPED)
    return refuse(why, why_bytes, "renormalise is %d; supported: none, sum, clamped (0 to 2)", d.renormalise);
  if (!(d.epsilon >= 0.0)) return refuse(why, why_bytes, "epsilon is %g; supported: 0 and above", d.epsilon);
  if (!std::isfinite(d.scale)) return refuse(why, why_bytes, "scale is %g; supported: finite", d.scale);
  if (!(static_cast<float>(d.temperature) > 0.0f) || !std::isfinite(static_cast<float>(d.temperature)))
    return refuse(why, why_bytes, "temperature is %g; supported: above 0, finite", d.temperature);
  return 1;
}

// The plain router: tokens choose, without noise or capacity; `outputs`: the bits supported beyond ids, weights and lists.
inline int32_t check_route(const chorus_route_desc &d, char *why, size_t why_bytes, uint32_t outputs = 0) {
  if (check_route_fields(d, why, why_bytes) == 0) return 0;
  if (d.selection != CHORUS_ROUTE_TOKENS_CHOOSE)
    return refuse(why, why_bytes, "selection is %d; supported: tokens-choose (0)", d.selection);
  if (d.noise != 0.0) return refuse(why, why_bytes, "noise is %g; supported: 0", d.noise);
  if (d.capacity != 0) return refuse(why, why_bytes, "capacity is %lld; supported: 0", static_cast<long long>(d.capacity));
  if (d.capacity_factor != 0.0)
    return refuse(why, why_bytes, "capacity_factor is %g; supported: 0", d.capacity_factor);
  if (d.drop != CHORUS_ROUTE_DROP_NONE) return refuse(why, why_bytes, "drop is %d; supported: none (0)", d.drop);
  if ((d.outputs & ~outputs) != 0)
    return refuse(why, why_bytes, "outputs is 0x%x; supported beside ids, weights and lists: bits of 0x%x", d.outputs, outputs);
  const bool blocks = (d.outputs & CHORUS_ROUTE_OUT_BLOCKS) != 0;
  if (d.block < 0 || blocks != (d.block > 0))
    return refuse(why, why_bytes, "block is %d; supported: 1 and above with outputs of blocks, else 0", d.block);
  if (blocks && int64_t{d.n_experts} * (d.block - 1) > INT32_MAX - d.max_tokens * d.k)
    return refuse(why, why_bytes, "block is %d; supported: so that max_tokens * k + n_experts * (block - 1) fits i32", d.block);
  return 1;
}

}  // namespace chorus::plugin
#endif  // CHORUS_PLUGIN_ROUTE_HPP_
