// SPDX-License-Identifier: Apache-2.0
//
// What backends that implement sparse.gemv and sparse.ffn share: which descriptors are whole, and which indices of a row are
// kept. Semantics: docs/numerics.md, "Sparse rows". Header-only over plugin.hpp.
#ifndef CHORUS_PLUGIN_SPARSE_HPP_
#define CHORUS_PLUGIN_SPARSE_HPP_

#include <cmath>
#include <cstring>

#include "exact_math.h"
#include "plugin_experts.hpp"

namespace chorus::plugin {

inline constexpr int32_t kSparseMaxRows = 8;

// ---- Descriptors: 0 after a refusal, else 1 ----

inline int32_t accept_sparse_fields(int32_t max_rows, chorus_sparse_pick pick, chorus_dtype weights, chorus_dtype x,
                                    chorus_dtype y, double threshold, double dense_above, char *why, size_t bytes) {
  if (max_rows < 1 || max_rows > kSparseMaxRows)
    return refuse(why, bytes, "max_rows is %d; supported: 1 to %d", max_rows, kSparseMaxRows);
  if (pick < CHORUS_SPARSE_NONZERO || pick > CHORUS_SPARSE_GIVEN)
    return refuse(why, bytes, "pick is %d; supported: nonzero, magnitude, scores, given (0 to 3)", pick);
  if (weights != CHORUS_F32 && weights != CHORUS_BF16 && weights != CHORUS_I8)
    return refuse(why, bytes, "weights_dtype is 0x%x; supported: f32, bf16, i8", weights);
  for (const chorus_dtype dtype : {x, y}) {
    if (dtype != CHORUS_F32 && dtype != CHORUS_BF16)
      return refuse(why, bytes, "x_dtype is 0x%x, y_dtype is 0x%x; supported: f32, bf16", x, y);
  }
  if (is_nan(threshold) || (pick == CHORUS_SPARSE_MAGNITUDE && threshold < 0))
    return refuse(why, bytes, "threshold is %g; supported: a number, with magnitude 0 and above", threshold);
  if (!(dense_above >= 0)) return refuse(why, bytes, "dense_above is %g; supported: 0 and above", dense_above);
  return 1;
}

inline int32_t accept_sparse(const chorus_sparse_gemv_desc &d, char *why, size_t bytes) {
  if (d.inputs < 1 || d.outputs < 1 || d.inputs > INT32_MAX || d.outputs > INT32_MAX)
    return refuse(why, bytes, "inputs is %lld, outputs is %lld; supported: 1 to 2^31 - 1", static_cast<long long>(d.inputs),
                  static_cast<long long>(d.outputs));
  if (d.side != CHORUS_SPARSE_INPUTS && d.side != CHORUS_SPARSE_OUTPUTS)
    return refuse(why, bytes, "side is %d; supported: inputs, outputs (0, 1)", d.side);
  if (d.side == CHORUS_SPARSE_OUTPUTS && d.pick != CHORUS_SPARSE_SCORES && d.pick != CHORUS_SPARSE_GIVEN)
    return refuse(why, bytes, "pick is %d; supported with outputs: scores, given (2, 3)", d.pick);
  return accept_sparse_fields(d.max_rows, d.pick, d.weights_dtype, d.x_dtype, d.y_dtype, d.threshold, d.dense_above, why, bytes);
}

inline int32_t accept_sparse(const chorus_sparse_ffn_desc &d, char *why, size_t bytes) {
  if (d.hidden < 1 || d.intermediate < 1 || d.hidden > INT32_MAX || d.intermediate > INT32_MAX)
    return refuse(why, bytes, "hidden is %lld, intermediate is %lld; supported: 1 to 2^31 - 1",
                  static_cast<long long>(d.hidden), static_cast<long long>(d.intermediate));
  if (d.activation < CHORUS_ACTIVATION_SWIGLU || d.activation > CHORUS_ACTIVATION_RELU2)
    return refuse(why, bytes, "activation is %d; supported: swiglu, geglu, reglu, relu, relu2 (0 to 4)", d.activation);
  if (is_gated(d.activation) != (d.gate != nullptr))
    return refuse(why, bytes, "gate is %s; activation %d has %s", d.gate != nullptr ? "given" : "NULL", d.activation,
                  is_gated(d.activation) ? "one" : "none");
  return accept_sparse_fields(d.max_rows, d.pick, d.weights_dtype, d.x_dtype, d.y_dtype, d.threshold, d.dense_above, why, bytes);
}

// ---- Weights ----

// A matrix [outputs, inputs] of a descriptor, any strides. int8: the stored integer; its scale is apart.
struct MatrixView {
  const chorus_tensor *tensor;
  chorus_dtype dtype;

  const void *at(int64_t row, int64_t column) const {
    const int64_t elements = row * stride_of(*tensor, 0) + column * stride_of(*tensor, 1);
    return static_cast<const char *>(tensor->data) + elements * static_cast<int64_t>(bytes_of(dtype));
  }
  float scale(int64_t row) const {
    if (dtype != CHORUS_I8) return 1.0f;
    const chorus_tensor &s = *tensor->quant->scales;
    return load_f32(plugin::dtype_of(s), s.data, row * stride_of(s, 0));
  }
};

inline float load_weight(chorus_dtype dtype, const void *data, int64_t index) {
  if (dtype == CHORUS_I8) return static_cast<float>(static_cast<const int8_t *>(data)[index]);
  return load_f32(dtype, data, index);
}

// ---- The kept set of a row ----

struct SparsePick {
  chorus_sparse_pick pick;
  double threshold, dense_above;
  int32_t n;  // indices

  // Whether the values decide, so that they must be computed first.
  bool by_value() const { return pick == CHORUS_SPARSE_NONZERO || pick == CHORUS_SPARSE_MAGNITUDE; }
  bool keeps(float value) const {
    return pick == CHORUS_SPARSE_NONZERO ? value != 0.0f : !(std::fabs(static_cast<double>(value)) <= threshold);
  }
  // The whole row, where more than `dense_above` of it is kept.
  int32_t finish(int32_t count, int32_t *list) const {
    if (!(dense_above > 0 && dense_above < 1) || !(static_cast<double>(count) > dense_above * static_cast<double>(n)))
      return count;
    for (int32_t i = 0; i < n; ++i) list[i] = i;
    return n;
  }
  int32_t of_values(const float *values, int32_t *list) const {
    int32_t count = 0;
    for (int32_t i = 0; i < n; ++i) {
      list[count] = i;
      count += keeps(values[i]) ? 1 : 0;
    }
    return finish(count, list);
  }
  // SCORES and GIVEN, of row `t`; ascending, each once. `marks` holds n bytes of scratch.
  int32_t of_args(const chorus_sparse_args &args, int64_t t, int32_t *list, uint8_t *marks) const {
    int32_t count = 0;
    if (pick == CHORUS_SPARSE_SCORES) {
      const auto *scores = static_cast<const float *>(row_of(*args.scores, t));
      for (int32_t i = 0; i < n; ++i) {
        list[count] = i;
        count += static_cast<double>(scores[i]) >= threshold ? 1 : 0;
      }
      return finish(count, list);
    }
    std::memset(marks, 0, static_cast<size_t>(n));
    const auto *given = static_cast<const int32_t *>(row_of(*args.given, t));
    for (int64_t j = 0; j < args.given->shape[1]; ++j) {
      if (given[j] >= 0 && given[j] < n) marks[given[j]] = 1;
    }
    for (int32_t i = 0; i < n; ++i) {
      list[count] = i;
      count += marks[i];
    }
    return finish(count, list);
  }
  void tell(const chorus_sparse_args &args, int64_t t, const int32_t *list, int32_t count) const {
    put_integer(args.counts, t, count);
    if (args.kept == nullptr) return;
    auto *kept = static_cast<int32_t *>(row_of(*args.kept, t));
    for (int32_t i = 0; i < n; ++i) kept[i] = i < count ? list[i] : -1;
  }
};

// ---- Activations: the gate's, and of plain layers the whole ----

inline float activate_gate(chorus_activation activation, float gate) {
  switch (activation) {
    case CHORUS_ACTIVATION_GEGLU:  // by tanh, as experts.ffn has it
      return gate * chorus_exact_sigmoid(1.5957691216f * (gate + 0.044715f * gate * gate * gate));
    case CHORUS_ACTIVATION_REGLU:
    case CHORUS_ACTIVATION_RELU: return gate < 0 ? 0.0f : gate;
    case CHORUS_ACTIVATION_RELU2: return gate < 0 ? 0.0f : gate * gate;
    default: return gate * chorus_exact_sigmoid(gate);
  }
}

}  // namespace chorus::plugin
#endif  // CHORUS_PLUGIN_SPARSE_HPP_
