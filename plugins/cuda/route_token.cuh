// SPDX-License-Identifier: Apache-2.0
// One token of route.topk on one warp: scores, keys, the k best experts, their weights. Every operation is IEEE binary32 in
// the order of docs/numerics.md, "Routing": the warp's lanes are the virtual lanes of "Reductions", so ids and weights are
// those of every other backend. Cost: O(E / 32 + k) steps, and a rescan of one lane's keys per chosen expert.
#pragma once
#include "cuda/device_math.cuh"
#include "cuda/tensors.h"

namespace chorus::cuda {

struct RouteCall {
  // The static part.
  int32_t n_experts, k;
  chorus_dtype logits_dtype, ids_dtype, weights_dtype;
  chorus_route_score score;
  bool score_first, ranks_logits;
  int32_t n_groups, topk_groups, group_top;  // n_groups 0: none; group_top 0: the maximum
  chorus_route_renormalise renormalise;
  float epsilon, scale, temperature;
  // Of the call.
  int64_t tokens;
  Matrix logits, ids, weights;
  Column bias, n_valid, counts, offsets, order, inverse;
  int32_t *chosen;     // [T, k]: ids again, compact
  int32_t *histogram;  // [chunks, E]: slots of each expert in a run of tokens, then those before it
  int32_t chunks;
};

// Keys as integers that order like them: NaN is the lowest of all keys, and what does not compete lies below.
inline constexpr uint32_t kOut = 0, kNaNKey = 1;

__device__ __forceinline__ uint32_t rank_key(float x) { return x != x ? kNaNKey : sortable(x); }
__device__ __forceinline__ float key_value(uint32_t key) { return key <= kNaNKey ? not_a_number() : from_sortable(key); }

// Joins the lanes in the tree of "Reductions"; every lane gets the sum.
__device__ __forceinline__ float join_lanes(float x) {
  for (int step = 1; step < 32; step *= 2) x = x + __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

// Sum of value(i), i in [0, count), in the order of "Reductions".
template <typename Value>
__device__ __forceinline__ float warp_sum_in_order(int count, const Value &value) {
  const int lane = threadIdx.x % 32;
  float runs[2] = {0.0f, 0.0f};  // 8192 elements are two blocks
  for (int b = 0; b < 2; ++b) {
    const int begin = b * CHORUS_BLOCK, end = begin + CHORUS_BLOCK < count ? begin + CHORUS_BLOCK : count;
    float sum = 0.0f;
    for (int i = begin + lane; i < end; i += 32) sum = sum + value(i);
    runs[b] = join_lanes(sum);
  }
  return count > CHORUS_BLOCK ? runs[0] + runs[1] : runs[0];
}

__device__ inline float pointwise_score(chorus_route_score score, float x) {
  switch (score) {
    case CHORUS_ROUTE_SIGMOID: return chorus_exact_sigmoid(x);
    case CHORUS_ROUTE_SQRT_SOFTPLUS: return sqrtf(chorus_exact_softplus(x));
    case CHORUS_ROUTE_RELU: return x < 0.0f ? 0.0f : x;
    default: return x;
  }
}

// out[i] = score of x(i) among `count`; out may be what x reads.
template <typename X>
__device__ void score_all(chorus_route_score score, int count, const X &x, float *out) {
  const int lane = threadIdx.x % 32;
  if (score != CHORUS_ROUTE_SOFTMAX) {
    for (int i = lane; i < count; i += 32) out[i] = pointwise_score(score, x(i));
    __syncwarp();
    return;
  }
  float top = -infinity();
  for (int i = lane; i < count; i += 32) top = x(i) > top ? x(i) : top;
  for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, step));
  if (isinf(top)) {
    int equal = 0;
    for (int i = lane; i < count; i += 32) equal += x(i) == top;
    const float share = 1.0f / static_cast<float>(__reduce_add_sync(kAllLanes, equal));
    for (int i = lane; i < count; i += 32) out[i] = x(i) == top ? share : 0.0f;
    __syncwarp();
    return;
  }
  for (int i = lane; i < count; i += 32) {
    const float a = x(i);
    out[i] = a != a ? 0.0f : chorus_exact_exp(a - top);
  }
  __syncwarp();
  const float sum = warp_sum_in_order(count, [&](int i) { return out[i]; });
  for (int i = lane; i < count; i += 32) out[i] = out[i] / sum;
  __syncwarp();
}

// Takes the best of keys[0, count) out `limit` times, best first, lowest index first among equals: chosen[j], -1 past them.
__device__ inline void take_best(uint32_t *keys, int count, int limit, int32_t *chosen) {
  const int lane = threadIdx.x % 32;
  uint32_t best = kOut;
  int at = 0;
  const auto look = [&] {
    best = kOut;
    for (int i = lane; i < count; i += 32) {
      if (keys[i] > best) {
        best = keys[i];
        at = i;
      }
    }
  };
  look();
  for (int j = 0; j < limit; ++j) {
    const uint32_t top = __reduce_max_sync(kAllLanes, best);
    const int winner = __reduce_min_sync(kAllLanes, best == top ? static_cast<unsigned>(at) : 0xffffffffu);
    if (lane == 0) chosen[j] = top == kOut ? -1 : winner;
    if (top == kOut || winner != at || best != top) continue;
    keys[at] = kOut;
    look();
  }
  __syncwarp();
}

// Score of group g of `size` experts: its best key, or the sum of its best `m`, highest first.
__device__ inline float group_score(const uint32_t *keys, int g, int size, int m) {
  uint64_t last = ~uint64_t{0};
  float sum = 0.0f;
  const int most = m == 0 ? 1 : m < size ? m : size;
  for (int j = 0; j < most; ++j) {
    uint64_t best = 0;
    for (int e = g * size; e < (g + 1) * size; ++e) {
      const uint64_t ranked_key = uint64_t{keys[e]} << 32 | static_cast<uint32_t>(~e);
      if (ranked_key < last && ranked_key > best) best = ranked_key;
    }
    const float value = key_value(static_cast<uint32_t>(best >> 32));
    sum = j == 0 ? value : sum + value;
    last = best;
  }
  return sum;
}

// Leaves the experts of the best groups among the keys.
__device__ inline void keep_best_groups(const RouteCall &call, uint32_t *keys, uint32_t *groups, int32_t *chosen) {
  const int lane = threadIdx.x % 32, size = call.n_experts / call.n_groups;
  for (int g = lane; g < call.n_groups; g += 32) groups[g] = rank_key(group_score(keys, g, size, call.group_top));
  __syncwarp();
  take_best(groups, call.n_groups, call.topk_groups, chosen);  // a group that was taken is out of `groups`
  for (int e = lane; e < call.n_experts; e += 32) {
    if (groups[e / size] != kOut) keys[e] = kOut;
  }
  __syncwarp();
}

__device__ inline void renormalise_weights(const RouteCall &call, float *w) {
  if (call.renormalise == CHORUS_ROUTE_RENORMALISE_NONE) return;
  const int lane = threadIdx.x % 32;
  int infinite = 0;
  for (int j = lane; j < call.k; j += 32) infinite += w[j] == infinity();
  infinite = __reduce_add_sync(kAllLanes, infinite);
  const float sum = warp_sum_in_order(call.k, [&](int j) { return w[j]; });
  const float clamped = sum < call.epsilon ? call.epsilon : sum;
  const float divisor = call.renormalise == CHORUS_ROUTE_RENORMALISE_SUM ? sum + call.epsilon : clamped;
  for (int j = lane; j < call.k; j += 32) {
    if (infinite > 0) {
      w[j] = w[j] == infinity() ? 1.0f / static_cast<float>(infinite) : 0.0f;
    } else {
      w[j] = w[j] / divisor;
      if (w[j] != w[j]) w[j] = 0.0f;
    }
  }
  __syncwarp();
}

// Scratch of a warp in shared memory.
struct TokenScratch {
  float *scores;     // [E]
  uint32_t *keys;    // [E]
  uint32_t *groups;  // [n_groups]
  int32_t *ids;      // [64]
  float *weights;    // [64]
};

__device__ inline void route_token(const RouteCall &call, int64_t t, const TokenScratch &s) {
  const int lane = threadIdx.x % 32, n = call.n_experts;
  const int64_t row = t * call.logits.row_stride;
  const auto logit = [&](int e) { return load(call.logits_dtype, call.logits.data, row + e); };
  const auto x = [&](int e) { return logit(e) / call.temperature; };
  if (call.score_first) score_all(call.score, n, x, s.scores);
  for (int e = lane; e < n; e += 32) {
    float key = call.ranks_logits ? logit(e) : s.scores[e];
    if (call.bias.data != nullptr) key = key + static_cast<const float *>(call.bias.data)[e * call.bias.stride];
    s.keys[e] = rank_key(key);
  }
  __syncwarp();
  if (call.n_groups > 0) keep_best_groups(call, s.keys, s.groups, s.ids);
  take_best(s.keys, n, call.k, s.ids);
  const auto chosen_x = [&](int j) { return s.ids[j] < 0 ? not_a_number() : x(s.ids[j]); };
  if (!call.score_first) score_all(call.score, call.k, chosen_x, s.weights);
  for (int j = lane; j < call.k; j += 32) {
    const float of = chosen_x(j);
    if (call.score_first) s.weights[j] = s.ids[j] < 0 ? 0.0f : s.scores[s.ids[j]];
    if (of != of) s.weights[j] = 0.0f;
  }
  __syncwarp();
  renormalise_weights(call, s.weights);
}

}  // namespace chorus::cuda
