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
  bool is_gate_up;
  chorus_activation activation;
  chorus_gate_layout layout;
  int64_t intermediate, rows;

  int64_t row_of(int64_t column) const {
    if (!is_gate_up || !is_gated(activation)) return column < rows ? column : -1;
    const int64_t output = column / (2 * kStrip) * kStrip + column % kStrip;
    if (output >= intermediate) return -1;
    const GateUpRows at = gate_up_rows(activation, layout, intermediate, output);
    return column / kStrip % 2 == 0 ? at.gate : at.up;
  }
};

PackedMatrix describe(chorus_dtype dtype, const chorus_quant *quant, int64_t depth, int64_t columns) {
  PackedMatrix m{};
  m.dtype = dtype;
  m.depth = depth;
  m.depth_padded = round_up(depth, 32);
  m.columns = round_up(columns, 64);
  m.unit = dtype == CHORUS_BF16 || dtype == CHORUS_I8 ? 2 : dtype == CHORUS_I4 ? 8 : 1;
  m.expert_bytes = m.columns / kStrip * m.strip_bytes();
  if (!is_quantised(dtype)) return m;
  m.group = quant->group_size > 0 ? quant->group_size : m.depth_padded;
  m.groups = (depth + m.group - 1) / m.group;
  m.block = std::min(quant->group_size > 0 ? quant->group_size : kMostBlock, kMostBlock);
  return m;
}

// One strip of one expert: 16 source rows, transposed.
template <typename T>
void pack_strip(const WeightView &source, const int64_t (&rows)[kStrip], const PackedMatrix &m, int64_t expert, char *to) {
  const int64_t column_stride = stride_of(*source.tensor, 2);
  auto *out = reinterpret_cast<T *>(to);
  for (int64_t k = 0; k < m.depth_padded; k += m.unit) {
    for (const int64_t row : rows) {
      const T *from = row >= 0 ? static_cast<const T *>(source.row(expert, row)) : nullptr;
      for (int64_t u = 0; u < m.unit; ++u) *out++ = row >= 0 && k + u < m.depth ? from[(k + u) * column_stride] : T{0};
    }
  }
}

// The same of int4: the value of depth u of a cell at bits 16 (u mod 2) + 4 (u / 2) of its column's lane.
void pack_int4_strip(const WeightView &source, const int64_t (&rows)[kStrip], const PackedMatrix &m, int64_t expert,
                     char *to) {
  auto *out = reinterpret_cast<uint32_t *>(to);
  for (int64_t k = 0; k < m.depth_padded; k += m.unit) {
    for (const int64_t row : rows) {
      uint32_t lane = 0;
      for (int64_t u = 0; row >= 0 && u < m.unit && k + u < m.depth; ++u) {
        const auto value = static_cast<uint32_t>(source.stored(source.row(expert, row), k + u)) & 15u;
        lane |= value << (u % 2 * 16 + u / 2 * 4);
      }
      *out++ = lane;
    }
  }
}

void pack_matrix(const chorus_host *host, const WeightView &source, const ColumnMap &map, const PackedMatrix &m) {
  const int64_t strips = m.columns / kStrip, experts = source.tensor->shape[0];
  parallel_for(host, experts * strips, [&](int64_t i) {
    const int64_t expert = i / strips, strip = i % strips;
    int64_t rows[kStrip];
    for (int64_t c = 0; c < kStrip; ++c) rows[c] = map.row_of(strip * kStrip + c);
    char *to = const_cast<char *>(m.strip(expert, strip));
    switch (m.dtype) {
      case CHORUS_F32: return pack_strip<uint32_t>(source, rows, m, expert, to);
      case CHORUS_I8: pack_strip<uint8_t>(source, rows, m, expert, to); break;
      case CHORUS_I4: pack_int4_strip(source, rows, m, expert, to); break;
      default: return pack_strip<uint16_t>(source, rows, m, expert, to);
    }
    auto *scales = const_cast<float *>(m.strip_scales(expert, strip));
    for (int64_t g = 0; g < m.groups; ++g) {
      for (const int64_t row : rows) *scales++ = row >= 0 ? source.scale(expert, row, g) : 0.0f;
    }
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
    if (to[i] >= state.n_experts - state.n_shared || to[i] < -1)
      return report(state.host, slot, CHORUS_INVALID_ARGUMENT, "expert_map[%lld] is %d; allowed: -1 to %d",
                    static_cast<long long>(i), to[i], state.n_experts - state.n_shared - 1);
  }
  return CHORUS_OK;
}

}  // namespace

chorus_status pack_experts(const chorus_experts_desc &desc, ExpertsState *state, chorus_error_slot slot) {
  const int64_t experts = desc.n_experts, outputs = round_up(desc.intermediate, 32);
  state->gate_up = describe(desc.weights_dtype, desc.gate_up->quant, desc.hidden,
                            is_gated(desc.activation) ? 2 * outputs : outputs);
  state->down = describe(desc.weights_dtype, desc.down->quant, desc.intermediate, desc.hidden);
  PackedMatrix &gate_up = state->gate_up, &down = state->down;
  const auto floats = [](bool any, int64_t count) { return any ? aligned(static_cast<uint64_t>(count) * sizeof(float)) : 0; };
  const bool quantised = is_quantised(desc.weights_dtype);
  const uint64_t gate_up_bytes = static_cast<uint64_t>(experts * gate_up.expert_bytes),
                 down_bytes = static_cast<uint64_t>(experts * down.expert_bytes),
                 gate_up_scales = floats(quantised, experts * gate_up.columns * gate_up.groups),
                 down_scales = floats(quantised, experts * down.columns * down.groups),
                 gate_up_bias = floats(desc.gate_up_bias != nullptr, experts * gate_up.columns),
                 down_bias = floats(desc.down_bias != nullptr, experts * down.columns);
  if (desc.expert_map != nullptr) state->n_ids = desc.expert_map->shape[0];
  const uint64_t map_bytes = floats(desc.expert_map != nullptr, state->n_ids);
  state->bytes = gate_up_bytes + down_bytes + gate_up_scales + down_scales + gate_up_bias + down_bias + map_bytes;
  state->memory = state->host->allocate(state->host->self, state->bytes, kAlignment);
  if (state->memory == nullptr)
    return report(state->host, slot, CHORUS_RESOURCE_EXHAUSTED, "no memory for %llu bytes of expert weights",
                  static_cast<unsigned long long>(state->bytes));
  char *at = static_cast<char *>(state->memory);
  const auto take = [&](uint64_t bytes) { return bytes == 0 ? nullptr : (at += bytes) - bytes; };
  const auto take_floats = [&](uint64_t bytes) { return reinterpret_cast<float *>(take(bytes)); };
  gate_up.data = take(gate_up_bytes);
  down.data = take(down_bytes);
  gate_up.scales = take_floats(gate_up_scales);
  down.scales = take_floats(down_scales);
  float *up_biases = take_floats(gate_up_bias), *down_biases = take_floats(down_bias);
  auto *map = reinterpret_cast<int32_t *>(take(map_bytes));
  const ColumnMap up_map{true, desc.activation, desc.layout, desc.intermediate, desc.gate_up->shape[1]};
  const ColumnMap down_map{false, desc.activation, desc.layout, desc.intermediate, desc.hidden};
  pack_matrix(state->host, {desc.gate_up, desc.weights_dtype}, up_map, gate_up);
  pack_matrix(state->host, {desc.down, desc.weights_dtype}, down_map, down);
  if (up_biases != nullptr) pack_bias(*desc.gate_up_bias, up_map, gate_up.columns, up_biases);
  if (down_biases != nullptr) pack_bias(*desc.down_bias, down_map, down.columns, down_biases);
  state->gate_up_bias = up_biases;
  state->down_bias = down_biases;
  state->map = map;
  return map != nullptr ? pack_map(*desc.expert_map, map, *state, slot) : CHORUS_OK;
}

}  // namespace chorus::cpu
