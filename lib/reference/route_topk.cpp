// SPDX-License-Identifier: Apache-2.0
// route.topk: logits -> the k experts of every token, their weights, and the slots sorted by expert.
// The contract is docs/numerics.md, "Routing"; every operation here is IEEE binary32 in written order.
// Cost per token: O(E) scores, O(E * k) worst-case selection; the lists are one counting sort over T * k slots.
#include <algorithm>

#include "chorus/plugin_route.hpp"
#include "reference/backend.h"

namespace chorus::reference {
namespace {

struct RouteState {
  const chorus_host *host;
  chorus_route_desc desc;
  bool ranks_logits;  // the logits themselves decide, no score needed for that
};

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
  float chosen[kRouteMaxSlots];
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
  return check_route(*static_cast<const chorus_route_desc *>(desc), why, why_bytes) == 0 ? 0 : kScore;
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
    float weights[kRouteMaxSlots] = {};
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
