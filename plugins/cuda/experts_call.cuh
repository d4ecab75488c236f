// SPDX-License-Identifier: Apache-2.0
// What the kernels of experts.ffn share: the call, operands, activations.
#pragma once
#include "chorus/plugin_experts.hpp"
#include "cuda/device_math.cuh"
#include "cuda/tensors.h"

namespace chorus::cuda {

inline constexpr int kExpertThreads = 256;
struct ExpertsCall {
  // The static part.
  int32_t n_experts, n_shared, k;
  int64_t hidden, intermediate, wide;
  chorus_dtype weights_dtype, x_dtype, y_dtype, ids_dtype;
  chorus_activation activation;
  chorus_gate_layout layout;
  float limit;
  bool weight_before;
  int64_t n_ids;
  int32_t tile;  // slots that share a read of the weights
  const char *gate_up, *down;  // compact
  const float *gate_up_bias, *down_bias;
  const int32_t *map;
  // Of the call.
  int64_t tokens, slots;
  Matrix x, ids, weights, y;
  Column status;
  // Workspace.
  int32_t *experts;  // [slots]: -1 where nothing is to be computed
  int32_t *order;    // [slots]: by expert, then by slot
  int32_t *tiles;    // [most_tiles, 3]: expert, first place in order, slots
  int32_t *n_tiles;
  float *h, *out;    // [slots, I], [slots, H]
};

__device__ __forceinline__ float rounded(chorus_dtype dtype, float x) {
  if (dtype == CHORUS_BF16) return from_bf16(to_bf16(x));
  return dtype == CHORUS_F16 ? from_f16(to_f16(x)) : x;
}

__device__ inline float weight_of(const ExpertsCall &call, int64_t t, int32_t j) {
  if (j >= call.k) return 1.0f;  // a shared expert
  return static_cast<const float *>(call.weights.data)[t * call.weights.row_stride + j * call.weights.stride];
}

// Operand c of slot s: x, times the routing weight where that comes before, rounded once.
__device__ __forceinline__ float operand_of(const ExpertsCall &call, int64_t s, int64_t c) {
  const int32_t per_token = call.k + call.n_shared;
  const int64_t t = s / per_token;
  const float x = load(call.x_dtype, call.x.data, t * call.x.row_stride + c);
  return rounded(call.weights_dtype, call.weight_before ? weight_of(call, t, static_cast<int32_t>(s % per_token)) * x : x);
}

// Rows of gate_up that make output i; gate -1 without gates.
__device__ inline GateUpRows rows_of(const ExpertsCall &call, int64_t i) {
  if (call.wide == call.intermediate) return {-1, i};
  switch (call.layout) {
    case CHORUS_UP_GATE_CONCATENATED: return {call.intermediate + i, i};
    case CHORUS_GATE_UP_INTERLEAVED: return {2 * i, 2 * i + 1};
    default: return {i, call.intermediate + i};
  }
}

// Stores h of output i of `slot` from its sums; at: the rows they are of.
__device__ __forceinline__ void store_h(const ExpertsCall &call, int32_t expert, int64_t slot, int64_t i, GateUpRows at, float gate, float up) {
  const float *bias = call.gate_up_bias != nullptr ? call.gate_up_bias + expert * call.wide : nullptr;
  if (bias != nullptr && at.gate >= 0) gate = gate + bias[at.gate];
  if (bias != nullptr) up = up + bias[at.up];
  call.h[slot * call.intermediate + i] = rounded(call.weights_dtype, plugin::activate(call.activation, call.limit, gate, up));
}

}  // namespace chorus::cuda
