// SPDX-License-Identifier: Apache-2.0
// Lays expert weights out once, in the order in which they are multiplied. Gate and up rows of 16 outputs become
// neighbouring strips, whatever the source's layout, so that the task which computes them applies the activation.
// Cost: one read and one write of the weights; padding to 32 depths and 64 columns.
#include <algorithm>
#include <cstring>

#include "cpu/experts.h"

namespace chorus::cpu {
namespace {

// The source row of a packed column, -1 for padding.
struct ColumnMap {
  bool is_gate_up, gated;
  chorus_gate_layout layout;
  int64_t intermediate, rows;

  int64_t row_of(int64_t column) const {
    if (!is_gate_up || !gated) return column < rows ? column : -1;
    const int64_t output = column / (2 * kStrip) * kStrip + column % kStrip;
    const bool is_up = column / kStrip % 2 == 1;
    if (output >= intermediate) return -1;
    switch (layout) {
      case CHORUS_UP_GATE_CONCATENATED: return is_up ? output : intermediate + output;
      case CHORUS_GATE_UP_INTERLEAVED: return 2 * output + (is_up ? 1 : 0);
      default: return is_up ? intermediate + output : output;
    }
  }
};

PackedMatrix describe(chorus_dtype dtype, int64_t depth, int64_t columns, int64_t strips_per_panel) {
  PackedMatrix m{};
  m.dtype = dtype;
  m.depth = depth;
  m.depth_padded = round_up(depth, 32);
  m.columns = round_up(columns, 64);
  m.unit = dtype == CHORUS_BF16 ? 2 : 1;
  m.strips = strips_per_panel;
  m.expert_bytes = m.depth_padded * m.columns * static_cast<int64_t>(bytes_of(dtype));
  return m;
}

// One strip of one expert: 16 source rows, transposed.
template <typename T>
void pack_strip(const chorus_tensor &source, const ColumnMap &map, const PackedMatrix &m, int64_t expert, int64_t strip) {
  const T *rows[kStrip];
  for (int64_t c = 0; c < kStrip; ++c) {
    const int64_t row = map.row_of(strip * kStrip + c);
    rows[c] = row < 0 ? nullptr
                      : static_cast<const T *>(source.data) + expert * stride_of(source, 0) + row * stride_of(source, 1);
  }
  const int64_t column_stride = stride_of(source, 2);
  char *cell = const_cast<char *>(m.strip(expert, strip));
  for (int64_t k = 0; k < m.depth_padded; k += m.unit, cell += m.step_bytes()) {
    T *to = reinterpret_cast<T *>(cell);
    for (int64_t c = 0; c < kStrip; ++c) {
      for (int64_t u = 0; u < m.unit; ++u)
        *to++ = rows[c] != nullptr && k + u < m.depth ? rows[c][(k + u) * column_stride] : T{0};
    }
  }
}

void pack_matrix(const chorus_host *host, const chorus_tensor &source, const ColumnMap &map, const PackedMatrix &m) {
  const int64_t strips = m.columns / kStrip;
  parallel_for(host, source.shape[0] * strips, [&](int64_t i) {
    if (bytes_of(m.dtype) == 4)
      pack_strip<uint32_t>(source, map, m, i / strips, i % strips);
    else
      pack_strip<uint16_t>(source, map, m, i / strips, i % strips);
  });
}

void pack_bias(const chorus_tensor &source, const ColumnMap &map, int64_t columns, float *to) {
  for (int64_t e = 0; e < source.shape[0]; ++e) {
    const auto *row = static_cast<const float *>(row_of(source, e));
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t from = map.row_of(c);
      *to++ = from >= 0 ? row[from * stride_of(source, 1)] : 0.0f;
    }
  }
}

chorus_status pack_map(const chorus_tensor &source, int32_t *to, const ExpertsState &state, chorus_error_slot slot) {
  for (int64_t i = 0; i < source.shape[0]; ++i) {
    to[i] = static_cast<const int32_t *>(source.data)[i * stride_of(source, 0)];
    if (to[i] >= state.n_experts || to[i] < -1)
      return report(state.host, slot, CHORUS_INVALID_ARGUMENT, "expert_map[%lld] is %d; allowed: -1 to %d",
                    static_cast<long long>(i), to[i], state.n_experts - 1);
  }
  return CHORUS_OK;
}

}  // namespace

chorus_status pack_experts(const chorus_experts_desc &desc, ExpertsState *state, chorus_error_slot slot) {
  const int64_t experts = desc.n_experts, up_rows = desc.gate_up->shape[1];
  const bool gated = is_gated(desc.activation);
  const int64_t outputs = round_up(desc.intermediate, 32);
  state->gate_up = describe(desc.weights_dtype, desc.hidden, gated ? 2 * outputs : outputs, 1);
  state->down = describe(desc.weights_dtype, desc.intermediate, desc.hidden, 1);
  PackedMatrix &gate_up = state->gate_up, &down = state->down;
  const auto bias_bytes = [&](const chorus_tensor *bias, const PackedMatrix &m) {
    return bias != nullptr ? aligned(static_cast<uint64_t>(experts * m.columns) * sizeof(float)) : 0;
  };
  const uint64_t gate_up_bytes = static_cast<uint64_t>(experts * gate_up.expert_bytes),
                 down_bytes = static_cast<uint64_t>(experts * down.expert_bytes),
                 gate_up_bias_bytes = bias_bytes(desc.gate_up_bias, gate_up),
                 down_bias_bytes = bias_bytes(desc.down_bias, down);
  if (desc.expert_map != nullptr) state->n_ids = desc.expert_map->shape[0];
  const uint64_t map_bytes = desc.expert_map != nullptr ? aligned(static_cast<uint64_t>(state->n_ids) * sizeof(int32_t)) : 0;
  state->bytes = gate_up_bytes + down_bytes + gate_up_bias_bytes + down_bias_bytes + map_bytes;
  state->memory = state->host->allocate(state->host->self, state->bytes, kAlignment);
  if (state->memory == nullptr)
    return report(state->host, slot, CHORUS_RESOURCE_EXHAUSTED, "no memory for %llu bytes of expert weights",
                  static_cast<unsigned long long>(state->bytes));
  char *at = static_cast<char *>(state->memory);
  const auto take = [&](uint64_t bytes) { return bytes == 0 ? nullptr : (at += bytes) - bytes; };
  gate_up.data = take(gate_up_bytes);
  down.data = take(down_bytes);
  auto *gate_up_bias = reinterpret_cast<float *>(take(gate_up_bias_bytes));
  auto *down_bias = reinterpret_cast<float *>(take(down_bias_bytes));
  auto *map = reinterpret_cast<int32_t *>(take(map_bytes));
  const ColumnMap up_map{true, gated, desc.layout, desc.intermediate, up_rows};
  const ColumnMap down_map{false, false, 0, desc.intermediate, desc.hidden};
  pack_matrix(state->host, *desc.gate_up, up_map, gate_up);
  pack_matrix(state->host, *desc.down, down_map, down);
  if (gate_up_bias != nullptr) pack_bias(*desc.gate_up_bias, up_map, gate_up.columns, gate_up_bias);
  if (down_bias != nullptr) pack_bias(*desc.down_bias, down_map, down.columns, down_bias);
  state->gate_up_bias = gate_up_bias;
  state->down_bias = down_bias;
  state->map = map;
  return map != nullptr ? pack_map(*desc.expert_map, map, *state, slot) : CHORUS_OK;
}

}  // namespace chorus::cpu
