// SPDX-License-Identifier: Apache-2.0
//
// What backends that implement experts.ffn share: which rows of gate_up an output has, what operands are rounded to, the
// real value of a stored weight, which descriptors are whole. Semantics: docs/numerics.md, "Experts". Header-only over
// plugin.hpp.
#ifndef CHORUS_PLUGIN_EXPERTS_HPP_
#define CHORUS_PLUGIN_EXPERTS_HPP_

#include <cmath>
#include <initializer_list>

#include "exact_math.h"
#include "plugin.hpp"

namespace chorus::plugin {

// ---- Shapes ----

// Whether `activation` has gate rows.
inline bool is_gated(chorus_activation activation) {
  return activation != CHORUS_ACTIVATION_RELU && activation != CHORUS_ACTIVATION_RELU2;
}

// Rows of gate_up that make output `i` of `intermediate`; gate -1 without gates.
struct GateUpRows {
  int64_t gate, up;
};
inline GateUpRows gate_up_rows(chorus_activation activation, chorus_gate_layout layout, int64_t intermediate, int64_t i) {
  if (!is_gated(activation)) return {-1, i};
  switch (layout) {
    case CHORUS_UP_GATE_CONCATENATED: return {intermediate + i, i};
    case CHORUS_GATE_UP_INTERLEAVED: return {2 * i, 2 * i + 1};
    default: return {i, intermediate + i};
  }
}

// ---- Activation ----

// What a gate and an up become. The clamps of `limit` (0: none) come first; NaN stays NaN.
CHORUS_EXACT_FN float activate(chorus_activation activation, float limit, float gate, float up) {
  if (limit > 0) {
    if (gate > limit) gate = limit;
    if (up > limit) up = limit;
    if (up < -limit) up = -limit;
  }
  const auto relu = [](float x) { return x < 0 ? 0.0f : x; };
  switch (activation) {
    case CHORUS_ACTIVATION_GEGLU:  // 0.5 g (1 + tanh(t)) = g sigmoid(2t), t = sqrt(2 / pi) (g + 0.044715 g^3)
      return gate * chorus_exact_sigmoid(1.5957691216f * (gate + 0.044715f * gate * gate * gate)) * up;
    case CHORUS_ACTIVATION_REGLU: return relu(gate) * up;
    case CHORUS_ACTIVATION_RELU: return relu(up);
    case CHORUS_ACTIVATION_RELU2: return relu(up) * relu(up);
    case CHORUS_ACTIVATION_GPT_OSS: return (up + 1.0f) * (gate * chorus_exact_sigmoid(1.702f * gate));
    default: return gate * chorus_exact_sigmoid(gate) * up;
  }
}

// ---- Weights ----

inline bool is_quantised(chorus_dtype weights) { return weights == CHORUS_I8 || weights == CHORUS_I4; }

// What x and h are rounded to before they are multiplied.
inline chorus_dtype operand_dtype(chorus_dtype weights) { return is_quantised(weights) ? CHORUS_BF16 : weights; }

// x rounded to an operand's dtype, still f32.
inline float rounded_operand(chorus_dtype dtype, float x) {
  if (dtype == CHORUS_BF16) return f32_from_bf16(bf16_from_f32(x));
  return dtype == CHORUS_F16 ? f32_from_f16(f16_from_f32(x)) : x;
}

// A weight tensor [E, rows, columns] of the descriptor; columns counts weights, two to a byte of int4.
struct WeightView {
  const chorus_tensor *tensor;
  chorus_dtype dtype;  // the descriptor's weights_dtype

  const void *row(int64_t e, int64_t r) const {
    const int64_t elements = e * stride_of(*tensor, 0) + r * stride_of(*tensor, 1);
    return static_cast<const char *>(tensor->data) + elements * static_cast<int64_t>(bytes_of(dtype_of(*tensor)));
  }
  // The integer of a quantised tensor.
  int32_t stored(const void *row, int64_t c) const {
    const int64_t step = stride_of(*tensor, 2);
    if (dtype == CHORUS_I8) return static_cast<const int8_t *>(row)[c * step];
    const uint8_t byte = static_cast<const uint8_t *>(row)[c / 2 * step];
    const int32_t nibble = c % 2 == 0 ? byte & 15 : byte >> 4;
    return nibble < 8 ? nibble : nibble - 16;
  }
  int64_t group_of(int64_t c) const { return tensor->quant->group_size > 0 ? c / tensor->quant->group_size : 0; }
  float scale(int64_t e, int64_t r, int64_t group) const {
    const chorus_tensor &s = *tensor->quant->scales;
    return load_f32(dtype_of(s), s.data, e * stride_of(s, 0) + r * stride_of(s, 1) + group * stride_of(s, 2));
  }
  // The real value.
  float at(int64_t e, int64_t r, int64_t c) const {
    if (!is_quantised(dtype)) return load_f32(dtype, row(e, r), c * stride_of(*tensor, 2));
    return scale(e, r, group_of(c)) * static_cast<float>(stored(row(e, r), c));
  }
};

// ---- Descriptors ----

// 0 after a refusal: what no backend takes, or the fields contradict each other. Else 1.
inline int32_t accept_experts(const chorus_experts_desc &d, char *why, size_t bytes) {
  const auto number = [](int64_t n) { return static_cast<long long>(n); };
  if (d.n_experts < 1) return refuse(why, bytes, "n_experts is %d; supported: 1 and above", d.n_experts);
  if (d.k < 1) return refuse(why, bytes, "k is %d; supported: 1 and above", d.k);
  if (d.hidden < 1 || d.intermediate < 1)
    return refuse(why, bytes, "hidden is %lld, intermediate is %lld; supported: 1 and above", number(d.hidden),
                  number(d.intermediate));
  for (const chorus_dtype dtype : {d.x_dtype, d.y_dtype}) {
    if (dtype != CHORUS_F32 && dtype != CHORUS_BF16)
      return refuse(why, bytes, "x_dtype is 0x%x, y_dtype is 0x%x; supported: f32, bf16", d.x_dtype, d.y_dtype);
  }
  if (d.ids_dtype != CHORUS_I32 && d.ids_dtype != CHORUS_I64)
    return refuse(why, bytes, "ids_dtype is 0x%x; supported: i32, i64", d.ids_dtype);
  if (d.activation < CHORUS_ACTIVATION_SWIGLU || d.activation > CHORUS_ACTIVATION_GPT_OSS)
    return refuse(why, bytes, "activation is %d; supported: 0 to %d", d.activation, CHORUS_ACTIVATION_GPT_OSS);
  if (d.layout < CHORUS_GATE_UP_CONCATENATED || d.layout > CHORUS_GATE_UP_INTERLEAVED)
    return refuse(why, bytes, "layout is %d; supported: gate-up, up-gate, interleaved (0 to 2)", d.layout);
  if (!(d.limit >= 0) || std::isinf(d.limit)) return refuse(why, bytes, "limit is %g; supported: 0 (off) and above", d.limit);
  if (d.n_shared < 0 || d.n_shared >= d.n_experts)
    return refuse(why, bytes, "n_shared is %d of %d experts; at least one must be routed", d.n_shared, d.n_experts);
  const bool quantised = is_quantised(d.weights_dtype);
  if (!quantised && d.weights_dtype != CHORUS_F32 && d.weights_dtype != CHORUS_BF16 && d.weights_dtype != CHORUS_F16)
    return refuse(why, bytes, "weights_dtype is 0x%x; supported: f32, bf16, f16, i8, i4", d.weights_dtype);
  for (const chorus_tensor *t : {d.gate_up, d.down}) {
    if (!quantised && t->quant != nullptr) return refuse(why, bytes, "weights of dtype 0x%x carry a quant", d.weights_dtype);
    if (!quantised) continue;
    const chorus_quant *q = t->quant;
    if (q == nullptr || q->scales == nullptr) return refuse(why, bytes, "integer weights without quant->scales");
    if (q->zero_points != nullptr) return refuse(why, bytes, "quant->zero_points are given; supported: NULL (symmetric)");
    if (q->axis != 2) return refuse(why, bytes, "quant->axis is %d; supported: 2, the columns", q->axis);
    const uint32_t packing = d.weights_dtype == CHORUS_I4 ? CHORUS_PACKING_INT4 : CHORUS_PACKING_NONE;
    if (q->packing != packing)
      return refuse(why, bytes, "quant->packing is %u with weights_dtype 0x%x; %u is needed", q->packing, d.weights_dtype,
                    packing);
    if (q->group_size < 0) return refuse(why, bytes, "quant->group_size is %lld; supported: 0 and above", number(q->group_size));
  }
  return 1;
}

}  // namespace chorus::plugin
#endif  // CHORUS_PLUGIN_EXPERTS_HPP_
