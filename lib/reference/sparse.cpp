// SPDX-License-Identifier: Apache-2.0
// sparse.gemv and sparse.ffn: y = W x by the kept indices alone, one row at a time, f32 sums in ascending order; the plain
// computation that other backends' errors are measured against. docs/numerics.md, "Sparse rows".
// Cost: 2 flops per weight that is not skipped. Weights are read column by column of what is kept.
#include "chorus/plugin_sparse.hpp"
#include "reference/backend.h"

namespace chorus::reference {
namespace {

// One matrix as f32, by rows of what is listed, with a scale per output and a bias.
struct Matrix {
  const float *weights;  // [outputs, inputs]
  const float *scales;   // [outputs]
  const float *bias;     // [outputs] or NULL
  int64_t inputs, outputs;
};

struct SparseState {
  const chorus_host *host;
  SparsePick pick;
  bool is_ffn;
  chorus_sparse_side side;
  chorus_activation activation;
  chorus_dtype x_dtype, y_dtype;
  Matrix gate, up, down;  // of sparse.gemv `down` alone; gate without weights: none
  void *memory;
  uint64_t bytes;
};

// ---- Prepare ----

uint64_t matrix_bytes(int64_t outputs, int64_t inputs) {
  return aligned(sizeof(float) * static_cast<uint64_t>(outputs * inputs)) + 2 * aligned(sizeof(float) * static_cast<uint64_t>(outputs));
}

Matrix pack(const MatrixView &from, const chorus_tensor *bias, int64_t outputs, int64_t inputs, char *&to) {
  auto *weights = reinterpret_cast<float *>(to);
  to += aligned(sizeof(float) * static_cast<uint64_t>(outputs * inputs));
  auto *scales = reinterpret_cast<float *>(to);
  to += aligned(sizeof(float) * static_cast<uint64_t>(outputs));
  auto *biases = reinterpret_cast<float *>(to);
  to += aligned(sizeof(float) * static_cast<uint64_t>(outputs));
  for (int64_t o = 0; o < outputs; ++o) {
    for (int64_t i = 0; i < inputs; ++i) weights[o * inputs + i] = load_weight(from.dtype, from.at(o, i), 0);
    scales[o] = from.scale(o);
    biases[o] = bias != nullptr ? f32_at(*bias, o) : 0.0f;
  }
  return {weights, scales, bias != nullptr ? biases : nullptr, inputs, outputs};
}

void sparse_release(void *prepared) {
  const auto *state = static_cast<const SparseState *>(prepared);
  if (state == nullptr) return;
  if (state->memory != nullptr) state->host->deallocate(state->host->self, state->memory, state->bytes, kAlignment);
  free_state<SparseState>(prepared);
}

// A state with `bytes` of memory; NULL after an error was described.
SparseState *make_sparse(const chorus_host *host, uint64_t bytes, chorus_error_slot slot) {
  auto *state = make_state<SparseState>(host, slot);
  if (state == nullptr) return nullptr;
  state->bytes = bytes;
  state->memory = host->allocate(host->self, bytes, kAlignment);
  if (state->memory != nullptr) return state;
  report(host, slot, CHORUS_RESOURCE_EXHAUSTED, "no memory for %llu bytes of weights", static_cast<unsigned long long>(bytes));
  sparse_release(state);
  return nullptr;
}

int32_t gemv_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  return accept_sparse(*static_cast<const chorus_sparse_gemv_desc *>(desc), why, bytes) > 0 ? kScore : 0;
}
int32_t ffn_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  return accept_sparse(*static_cast<const chorus_sparse_ffn_desc *>(desc), why, bytes) > 0 ? kScore : 0;
}

chorus_status gemv_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_sparse_gemv_desc *>(desc);
  SparseState *state = make_sparse(device->host, matrix_bytes(d.outputs, d.inputs), slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->side = d.side;
  state->x_dtype = d.x_dtype;
  state->y_dtype = d.y_dtype;
  state->pick = {d.pick, d.threshold, d.dense_above,
                 static_cast<int32_t>(d.side == CHORUS_SPARSE_INPUTS ? d.inputs : d.outputs)};
  auto *to = static_cast<char *>(state->memory);
  state->down = pack({d.weights, d.weights_dtype}, d.bias, d.outputs, d.inputs, to);
  *out = state;
  return CHORUS_OK;
}

chorus_status ffn_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_sparse_ffn_desc *>(desc);
  const uint64_t wide = matrix_bytes(d.intermediate, d.hidden);
  SparseState *state =
      make_sparse(device->host, (d.gate != nullptr ? 2 : 1) * wide + matrix_bytes(d.hidden, d.intermediate), slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->is_ffn = true;
  state->activation = d.activation;
  state->x_dtype = d.x_dtype;
  state->y_dtype = d.y_dtype;
  state->pick = {d.pick, d.threshold, d.dense_above, static_cast<int32_t>(d.intermediate)};
  auto *to = static_cast<char *>(state->memory);
  if (d.gate != nullptr) state->gate = pack({d.gate, d.weights_dtype}, d.gate_bias, d.intermediate, d.hidden, to);
  state->up = pack({d.up, d.weights_dtype}, d.up_bias, d.intermediate, d.hidden, to);
  state->down = pack({d.down, d.weights_dtype}, d.down_bias, d.hidden, d.intermediate, to);
  *out = state;
  return CHORUS_OK;
}

uint64_t sparse_prepared_bytes(const void *prepared) { return static_cast<const SparseState *>(prepared)->bytes; }

// ---- Run ----

// x, the kept list, what is computed at its indices, and marks.
struct Scratch {
  float *x, *values;
  int32_t *list;
  uint8_t *marks;
};

uint64_t longest(const SparseState &s) {
  const int64_t a = s.is_ffn ? s.up.inputs : s.down.inputs;
  return static_cast<uint64_t>(a > s.pick.n ? a : int64_t{s.pick.n});
}

uint64_t sparse_workspace(const void *prepared, const void *) {
  const auto &s = *static_cast<const SparseState *>(prepared);
  return 3 * aligned(4 * longest(s)) + aligned(longest(s));
}

Scratch scratch_of(const SparseState &s, void *workspace) {
  auto *at = static_cast<char *>(workspace);
  const uint64_t row = aligned(4 * longest(s));
  return {reinterpret_cast<float *>(at), reinterpret_cast<float *>(at + row), reinterpret_cast<int32_t *>(at + 2 * row),
          reinterpret_cast<uint8_t *>(at + 3 * row)};
}

// Output `o` from all inputs.
float output(const Matrix &m, const float *x, int64_t o) {
  const float *w = m.weights + o * m.inputs;
  float sum = 0.0f;
  for (int64_t i = 0; i < m.inputs; ++i) sum = sum + x[i] * w[i];
  sum = sum * m.scales[o];
  return m.bias != nullptr ? sum + m.bias[o] : sum;
}

// Output `o` from the listed inputs; values are those of x at all indices.
float output(const Matrix &m, const float *values, const int32_t *list, int32_t count, int64_t o) {
  const float *w = m.weights + o * m.inputs;
  float sum = 0.0f;
  for (int32_t j = 0; j < count; ++j) sum = sum + values[list[j]] * w[list[j]];
  sum = sum * m.scales[o];
  return m.bias != nullptr ? sum + m.bias[o] : sum;
}

void load_row(const SparseState &s, const chorus_sparse_args &args, int64_t t, int64_t count, float *x) {
  const void *row = row_of(*args.x, t);
  for (int64_t i = 0; i < count; ++i) x[i] = load_f32(s.x_dtype, row, i);
}

void gemv_row(const SparseState &s, const chorus_sparse_args &args, int64_t t, const Scratch &scratch) {
  load_row(s, args, t, s.down.inputs, scratch.x);
  const int32_t count = s.pick.by_value() ? s.pick.of_values(scratch.x, scratch.list)
                                          : s.pick.of_args(args, t, scratch.list, scratch.marks);
  void *y = row_of(*args.y, t);
  if (s.side == CHORUS_SPARSE_INPUTS) {
    for (int64_t o = 0; o < s.down.outputs; ++o)
      store_f32(s.y_dtype, y, o, output(s.down, scratch.x, scratch.list, count, o));
  } else {
    for (int64_t o = 0, j = 0; o < s.down.outputs; ++o) {
      const bool kept = j < count && scratch.list[j] == o;
      store_f32(s.y_dtype, y, o, kept ? output(s.down, scratch.x, o) : 0.0f);
      j += kept;
    }
  }
  s.pick.tell(args, t, scratch.list, count);
}

void ffn_row(const SparseState &s, const chorus_sparse_args &args, int64_t t, const Scratch &scratch) {
  load_row(s, args, t, s.up.inputs, scratch.x);
  const bool gated = s.gate.weights != nullptr;
  const Matrix &first = gated ? s.gate : s.up;  // what is activated
  int32_t count;
  if (s.pick.by_value()) {
    for (int32_t i = 0; i < s.pick.n; ++i) scratch.values[i] = activate_gate(s.activation, output(first, scratch.x, i));
    count = s.pick.of_values(scratch.values, scratch.list);
  } else {
    count = s.pick.of_args(args, t, scratch.list, scratch.marks);
    for (int32_t j = 0; j < count; ++j) {
      const int32_t i = scratch.list[j];
      scratch.values[i] = activate_gate(s.activation, output(first, scratch.x, i));
    }
  }
  for (int32_t j = 0; gated && j < count; ++j) {
    const int32_t i = scratch.list[j];
    scratch.values[i] = scratch.values[i] * output(s.up, scratch.x, i);
  }
  void *y = row_of(*args.y, t);
  for (int64_t o = 0; o < s.down.outputs; ++o)
    store_f32(s.y_dtype, y, o, output(s.down, scratch.values, scratch.list, count, o));
  s.pick.tell(args, t, scratch.list, count);
}

chorus_status sparse_run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot) {
  const auto &s = *static_cast<const SparseState *>(prepared);
  const auto &args = *static_cast<const chorus_sparse_args *>(args_pointer);
  const Scratch scratch = scratch_of(s, exec->workspace);
  for (int64_t t = 0; t < args.rows; ++t) {
    if (s.is_ffn) {
      ffn_row(s, args, t, scratch);
    } else {
      gemv_row(s, args, t, scratch);
    }
  }
  return CHORUS_OK;
}

}  // namespace

const chorus_kernel kSparseGemv = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                   CHORUS_OP_SPARSE_GEMV,
                                   1,
                                   0,
                                   "sparse_gemv",
                                   gemv_score,
                                   gemv_prepare,
                                   sparse_workspace,
                                   sparse_run,
                                   sparse_release,
                                   sparse_prepared_bytes};

const chorus_kernel kSparseFfn = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                  CHORUS_OP_SPARSE_FFN,
                                  1,
                                  0,
                                  "sparse_ffn",
                                  ffn_score,
                                  ffn_prepare,
                                  sparse_workspace,
                                  sparse_run,
                                  sparse_release,
                                  sparse_prepared_bytes};

}  // namespace chorus::reference
