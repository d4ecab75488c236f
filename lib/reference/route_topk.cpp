// SPDX-License-Identifier: Apache-2.0
// route.topk: logits -> the k experts of every token, their weights, and the slots sorted by expert.
// The contract is docs/numerics.md, "Routing"; every operation here is IEEE binary32 in written order.
// Cost per token: O(E) scores, O(E * k) worst-case selection; the lists are one counting sort over T * k slots.
#include <algorithm>
#include <cmath>
#include <limits>

#include "chorus/exact_math.h"
#include "reference/backend.h"

namespace chorus::reference {
namespace {

constexpr int32_t kMaxExperts = 8192;
constexpr int32_t kMaxSlots = 64;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct RouteState {
  const chorus_host *host;
  chorus_route_desc desc;
  bool ranks_logits;  // the logits themselves decide, no score needed for that
};

bool has_groups(const chorus_route_desc &d) { return d.n_groups > 1; }

// Where the score is strictly monotone its rounding must not decide: rank the logits (DESIGN 3a.4).
bool ranks_logits(const chorus_route_desc &d) {
  if (d.order == CHORUS_ROUTE_TOPK_THEN_SCORE) return true;
  const bool sums_scores = has_groups(d) && d.group_score == CHORUS_ROUTE_GROUP_TOP_SUM;
  return d.has_bias == 0 && !sums_scores && d.score != CHORUS_ROUTE_RELU;
}

// ---- Scores ----

// softmax of `count` values. An infinite maximum is shared equally by the values equal to it; NaN gets 0.
void softmax(const float *x, int32_t count, float *out) {
  float top = -kInfinity;
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

float score_of(chorus_route_score score, float x) {
  switch (score) {
    case CHORUS_ROUTE_SIGMOID: return chorus_exact_sigmoid(x);
    case CHORUS_ROUTE_SQRT_SOFTPLUS: return std::sqrt(chorus_exact_softplus(x));
    case CHORUS_ROUTE_RELU: return x < 0.0f ? 0.0f : x;
    default: return x;
  }
}

void score_all(chorus_route_score score, const float *x, int32_t count, float *out) {
  if (score == CHORUS_ROUTE_SOFTMAX) return softmax(x, count, out);
  for (int32_t i = 0; i < count; ++i) out[i] = score_of(score, x[i]);
}

// ---- Selection ----

// Strictly better: higher, NaN below everything. Equal keys keep their order, so the lower index wins.
bool better(float a, float b) { return a > b || (is_nan(b) && !is_nan(a)); }

// Keeps the best `limit` indices in `ids`, best first, by insertion of indices in ascending order.
struct Best {
  int32_t limit;
  int32_t count = 0;
  int32_t ids[kMaxSlots] = {};
  float keys[kMaxSlots] = {};

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
float group_score(const chorus_route_desc &d, const float *keys, int32_t begin, int32_t end) {
  Best best{d.group_score == CHORUS_ROUTE_GROUP_MAX ? 1 : std::min({d.group_top, end - begin, kMaxSlots})};
  for (int32_t e = begin; e < end; ++e) best.offer(e, keys[e]);
  float sum = best.keys[0];
  for (int32_t i = 1; i < best.count; ++i) sum = sum + best.keys[i];
  return sum;
}

// The k best experts, best first; with groups, only those of the best `topk_groups` groups compete.
Best select(const chorus_route_desc &d, const float *keys) {
  Best best{d.k};
  if (!has_groups(d)) {
    for (int32_t e = 0; e < d.n_experts; ++e) best.offer(e, keys[e]);
    return best;
  }
  const int32_t size = d.n_experts / d.n_groups;
  Best groups{d.topk_groups};
  for (int32_t g = 0; g < d.n_groups; ++g) groups.offer(g, group_score(d, keys, g * size, (g + 1) * size));
  std::sort(groups.ids, groups.ids + groups.count);  // offer() breaks ties by arrival
  for (int32_t i = 0; i < groups.count; ++i) {
    for (int32_t e = groups.ids[i] * size; e < (groups.ids[i] + 1) * size; ++e) best.offer(e, keys[e]);
  }
  return best;
}

// ---- Weights ----

// w / (sum + eps) or w / max(sum, eps). Infinite weights share 1 equally; a quotient that is NaN (0 / 0) is 0.
void renormalise(const chorus_route_desc &d, float *w) {
  if (d.renormalise == CHORUS_ROUTE_RENORMALISE_NONE) return;
  const auto infinite = std::count(w, w + d.k, kInfinity);
  if (infinite > 0) {
    for (int32_t j = 0; j < d.k; ++j) w[j] = w[j] == kInfinity ? 1.0f / static_cast<float>(infinite) : 0.0f;
    return;
  }
  const float sum = sum_in_order<float>(d.k, [&](int64_t j) { return w[j]; });
  const float epsilon = static_cast<float>(d.epsilon);
  const float clamped = sum < epsilon ? epsilon : sum;
  const float divisor = d.renormalise == CHORUS_ROUTE_RENORMALISE_SUM ? sum + epsilon : clamped;
  for (int32_t j = 0; j < d.k; ++j) {
    w[j] = w[j] / divisor;
    if (is_nan(w[j])) w[j] = 0.0f;
  }
}

// Per-token scratch in the workspace, E floats each.
struct Scratch {
  float *logits, *scores, *keys;
};

// Routes one token: ids best first, weights in the same order.
Best route_token(const RouteState &state, const chorus_route_args &args, int64_t token, const Scratch &s, float *weights) {
  const chorus_route_desc &d = state.desc;
  const void *row = row_of(*args.logits, token);
  const bool score_first = d.order == CHORUS_ROUTE_SCORE_THEN_TOPK;
  const float temperature = static_cast<float>(d.temperature);
  for (int32_t e = 0; e < d.n_experts; ++e) s.keys[e] = load_f32(d.logits_dtype, row, e);
  for (int32_t e = 0; e < d.n_experts; ++e) s.logits[e] = s.keys[e] / temperature;
  if (score_first) score_all(d.score, s.logits, d.n_experts, s.scores);
  if (!state.ranks_logits) std::copy(s.scores, s.scores + d.n_experts, s.keys);
  if (d.has_bias != 0) {
    for (int32_t e = 0; e < d.n_experts; ++e) s.keys[e] = s.keys[e] + f32_at(*args.bias, e);
  }
  const Best best = select(d, s.keys);
  float chosen[kMaxSlots];
  for (int32_t j = 0; j < d.k; ++j) chosen[j] = (score_first ? s.scores : s.logits)[best.ids[j]];
  if (score_first) {
    for (int32_t j = 0; j < d.k; ++j) weights[j] = chosen[j];
  } else {
    score_all(d.score, chosen, d.k, weights);
  }
  for (int32_t j = 0; j < d.k; ++j) weights[j] = is_nan(s.logits[best.ids[j]]) ? 0.0f : weights[j];
  renormalise(d, weights);
  const float scale = static_cast<float>(d.scale);
  for (int32_t j = 0; j < d.k; ++j) weights[j] = weights[j] * scale;
  return best;
}

// ---- Lists ----

// Counting sort of the slots by expert: `slots` holds T * k ids, -1 for padding; `cursor` is E + 1 integers of scratch.
void write_lists(const chorus_route_args &args, int32_t n_experts, const int32_t *slots, int64_t n_slots, int32_t *cursor) {
  std::fill(cursor, cursor + n_experts + 1, 0);
  for (int64_t s = 0; s < n_slots; ++s) {
    if (slots[s] >= 0) ++cursor[slots[s] + 1];
  }
  for (int32_t e = 0; e < n_experts; ++e) put_integer(args.counts, e, cursor[e + 1]);
  for (int32_t e = 0; e < n_experts; ++e) cursor[e + 1] += cursor[e];
  for (int32_t e = 0; e <= n_experts; ++e) put_integer(args.offsets, e, cursor[e]);
  for (int64_t s = cursor[n_experts]; s < n_slots; ++s) put_integer(args.order, s, -1);
  for (int64_t s = 0; s < n_slots; ++s) {
    const int32_t position = slots[s] >= 0 ? cursor[slots[s]]++ : -1;
    put_integer(args.inverse, s, position);
    if (position >= 0) put_integer(args.order, position, s);
  }
}

// ---- The kernel ----

int32_t route_score(chorus_plugin_device *, const void *desc, char *why, size_t why_bytes) {
  const auto &d = *static_cast<const chorus_route_desc *>(desc);
  if (d.n_experts < 1 || d.n_experts > kMaxExperts)
    return refuse(why, why_bytes, "n_experts is %d; supported: 1 to %d", d.n_experts, kMaxExperts);
  const int32_t most = std::min(kMaxSlots, d.n_experts);
  if (d.k < 1 || d.k > most) return refuse(why, why_bytes, "k is %d; supported: 1 to %d", d.k, most);
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
  if (d.selection != CHORUS_ROUTE_TOKENS_CHOOSE)
    return refuse(why, why_bytes, "selection is %d; supported: tokens-choose (0)", d.selection);
  if (has_groups(d)) {
    if (d.n_experts % d.n_groups != 0)
      return refuse(why, why_bytes, "n_groups is %d; supported: a divisor of n_experts (%d)", d.n_groups, d.n_experts);
    if (d.topk_groups < 1 || d.topk_groups > std::min(d.n_groups, kMaxSlots) ||
        int64_t{d.topk_groups} * (d.n_experts / d.n_groups) < d.k)
      return refuse(why, why_bytes, "topk_groups is %d; supported: 1 to %d, holding at least k = %d experts", d.topk_groups,
                    std::min(d.n_groups, kMaxSlots), d.k);
    if (d.group_score != CHORUS_ROUTE_GROUP_MAX && d.group_score != CHORUS_ROUTE_GROUP_TOP_SUM)
      return refuse(why, why_bytes, "group_score is %d; supported: max, top-sum (0, 1)", d.group_score);
    if (d.group_score == CHORUS_ROUTE_GROUP_TOP_SUM && (d.group_top < 1 || d.group_top > kMaxSlots))
      return refuse(why, why_bytes, "group_top is %d; supported: 1 to %d", d.group_top, kMaxSlots);
  }
  if (d.renormalise < CHORUS_ROUTE_RENORMALISE_NONE || d.renormalise > CHORUS_ROUTE_RENORMALISE_CLAMPED)
    return refuse(why, why_bytes, "renormalise is %d; supported: none, sum, clamped (0 to 2)", d.renormalise);
  if (!(d.epsilon >= 0.0)) return refuse(why, why_bytes, "epsilon is %g; supported: 0 and above", d.epsilon);
  if (!std::isfinite(d.scale)) return refuse(why, why_bytes, "scale is %g; supported: finite", d.scale);
  if (d.noise != 0.0) return refuse(why, why_bytes, "noise is %g; supported: 0", d.noise);
  if (!(static_cast<float>(d.temperature) > 0.0f) || !std::isfinite(static_cast<float>(d.temperature)))
    return refuse(why, why_bytes, "temperature is %g; supported: above 0, finite", d.temperature);
  if (d.capacity != 0) return refuse(why, why_bytes, "capacity is %lld; supported: 0", static_cast<long long>(d.capacity));
  if (d.drop != CHORUS_ROUTE_DROP_NONE) return refuse(why, why_bytes, "drop is %d; supported: none (0)", d.drop);
  if (d.block != 0) return refuse(why, why_bytes, "block is %d; supported: 0", d.block);
  if (d.outputs != 0) return refuse(why, why_bytes, "outputs is 0x%x; supported: 0 (ids, weights, lists)", d.outputs);
  return kScore;
}

chorus_status route_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  auto *state = make_state<RouteState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->desc = *static_cast<const chorus_route_desc *>(desc);
  state->ranks_logits = ranks_logits(state->desc);
  *out = state;
  return CHORUS_OK;
}

bool wants_lists(const chorus_route_args &a) {
  return a.counts != nullptr || a.offsets != nullptr || a.order != nullptr || a.inverse != nullptr;
}

uint64_t route_workspace(const void *prepared, const void *args) {
  const auto &d = static_cast<const RouteState *>(prepared)->desc;
  const auto &a = *static_cast<const chorus_route_args *>(args);
  const uint64_t row = aligned(4 * (static_cast<uint64_t>(d.n_experts) + 1));
  const uint64_t slots = 4 * static_cast<uint64_t>(a.tokens) * static_cast<uint64_t>(d.k);
  return 4 * row + aligned(slots);  // whatever outputs are asked for: counts alone decide
}

void write_slots(const chorus_route_desc &d, const chorus_route_args &args, int64_t t, const int32_t *ids,
                 const float *weights) {
  if (args.ids != nullptr) {
    void *row = row_of(*args.ids, t);
    for (int32_t j = 0; j < d.k; ++j) put_integer(d.ids_dtype, row, j, ids[j]);
  }
  if (args.weights != nullptr) {
    void *row = row_of(*args.weights, t);
    for (int32_t j = 0; j < d.k; ++j) store_f32(d.weights_dtype, row, j, weights[j]);
  }
}

chorus_status route_run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot) {
  const auto &state = *static_cast<const RouteState *>(prepared);
  const auto &args = *static_cast<const chorus_route_args *>(args_pointer);
  const chorus_route_desc &d = state.desc;
  auto *memory = static_cast<char *>(exec->workspace);
  const uint64_t row = aligned(4 * (static_cast<uint64_t>(d.n_experts) + 1));
  const auto floats = [&](uint64_t i) { return reinterpret_cast<float *>(memory + i * row); };
  const Scratch scratch{floats(0), floats(1), floats(2)};
  auto *cursor = reinterpret_cast<int32_t *>(memory + 3 * row);
  int32_t *slots = wants_lists(args) ? reinterpret_cast<int32_t *>(memory + 4 * row) : nullptr;

  const int64_t n_valid = args.n_valid != nullptr ? integer_at(*args.n_valid, 0) : args.tokens;
  for (int64_t t = 0; t < args.tokens; ++t) {
    Best best{d.k};
    float weights[kMaxSlots] = {};
    if (t < n_valid) {
      best = route_token(state, args, t, scratch, weights);
    } else {
      std::fill(best.ids, best.ids + d.k, -1);
    }
    write_slots(d, args, t, best.ids, weights);
    if (slots != nullptr) std::copy(best.ids, best.ids + d.k, slots + t * d.k);
  }
  if (slots != nullptr) write_lists(args, d.n_experts, slots, args.tokens * d.k, cursor);
  return CHORUS_OK;
}

}  // namespace

const chorus_kernel kRouteTopk = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                  CHORUS_OP_ROUTE_TOPK,
                                  1,
                                  0,
                                  "route_topk",
                                  route_score,
                                  route_prepare,
                                  route_workspace,
                                  route_run,
                                  free_state<RouteState>,
                                  nullptr};

}  // namespace chorus::reference
