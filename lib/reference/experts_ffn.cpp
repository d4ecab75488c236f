// SPDX-License-Identifier: Apache-2.0
// experts.ffn: y_t = sum_j weight_tj * down_e(act(gate_e x_t, up_e x_t)), one token at a time; the plain f32-
// accumulating computation that other backends' errors are measured against. docs/numerics.md, "Experts".
// Cost: 6 * H * I flops per slot that counts; workspace: 3(H + I) floats per piece of tokens.
#include <algorithm>
#include <cstring>

#include "chorus/exact_math.h"
#include "chorus/plugin_experts.hpp"
#include "reference/backend.h"

namespace chorus::reference {
namespace {

constexpr int64_t kMostPieces = 16;  // tokens are split into at most so many tasks

struct ExpertsState {
  const chorus_host *host;
  int32_t n_experts, n_shared, k;
  int64_t hidden, intermediate, wide;  // wide: rows of gate_up
  chorus_dtype weights_dtype, x_dtype, y_dtype, ids_dtype;
  chorus_activation activation;
  chorus_gate_layout layout;
  float limit;  // 0: none
  bool weight_before;
  int64_t n_ids;  // ids an expert_map knows, or the experts that are routed
  // One block of memory, compact; matrices are transposed: [E, H, wide] and [E, I, H].
  void *memory;
  uint64_t bytes;
  const char *gate_up, *down;             // in stored_dtype
  const float *gate_up_bias, *down_bias;  // NULL: none
  const int32_t *map;                     // NULL: identity
};

int32_t experts_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  return accept_experts(*static_cast<const chorus_experts_desc *>(desc), why, bytes) > 0 ? kScore : 0;
}

// ---- Prepare ----

// Weights are kept as they are when run() can widen them fast, else as f32: of integers the product with their scale.
chorus_dtype stored_dtype(chorus_dtype weights) { return weights == CHORUS_BF16 ? CHORUS_BF16 : CHORUS_F32; }

uint64_t matrix_bytes(chorus_dtype weights, int64_t experts, int64_t rows, int64_t columns) {
  return aligned(static_cast<uint64_t>(experts * rows * columns) * bytes_of(stored_dtype(weights)));
}

// The matrices of all experts at `to`, which moves past them; transposed, so that run() reads them in the order in which
// it multiplies.
const char *pack_matrices(const WeightView &from, int64_t experts, int64_t rows, int64_t columns, char *&to) {
  const char *begin = to;
  const chorus_dtype stored = stored_dtype(from.dtype);
  int64_t at = 0;
  for (int64_t e = 0; e < experts; ++e) {
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t r = 0; r < rows; ++r, ++at) store_f32(stored, to, at, from.at(e, r, c));
    }
  }
  to += matrix_bytes(from.dtype, experts, rows, columns);
  return begin;
}

// Bytes of the compact copy of `t`, 0 for NULL. Elements have four bytes.
uint64_t packed_bytes(const chorus_tensor *t) {
  if (t == nullptr) return 0;
  uint64_t bytes = 4;
  for (int32_t i = 0; i < t->ndim; ++i) bytes *= static_cast<uint64_t>(t->shape[i]);
  return aligned(bytes);
}

// Copies a vector or matrix of four-byte elements, any strides, to `to`, which moves past it. NULL stays NULL.
const char *pack(const chorus_tensor *t, char *&to) {
  if (t == nullptr) return nullptr;
  const int last = t->ndim - 1;
  const int64_t rows = t->ndim == 2 ? t->shape[0] : 1, row_stride = t->ndim == 2 ? stride_of(*t, 0) : 0;
  const char *begin = to;
  char *at = to;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < t->shape[last]; ++c, at += 4)
      std::memcpy(at, static_cast<const char *>(t->data) + (r * row_stride + c * stride_of(*t, last)) * 4, 4);
  }
  to += packed_bytes(t);
  return begin;
}

void experts_release(void *prepared) {
  const auto *state = static_cast<const ExpertsState *>(prepared);
  if (state == nullptr) return;
  if (state->memory != nullptr) state->host->deallocate(state->host->self, state->memory, state->bytes, kAlignment);
  free_state<ExpertsState>(prepared);
}

chorus_status check_map(const ExpertsState &state, chorus_error_slot slot) {
  for (int64_t i = 0; state.map != nullptr && i < state.n_ids; ++i) {
    if (state.map[i] >= state.n_experts - state.n_shared || state.map[i] < -1)
      return report(state.host, slot, CHORUS_INVALID_ARGUMENT, "expert_map[%lld] is %d; allowed: -1 to %d",
                    static_cast<long long>(i), state.map[i], state.n_experts - state.n_shared - 1);
  }
  return CHORUS_OK;
}

chorus_status experts_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_experts_desc *>(desc);
  const chorus_host *host = device->host;
  auto *state = make_state<ExpertsState>(host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->n_experts = d.n_experts;
  state->n_shared = d.n_shared;
  state->k = d.k;
  state->hidden = d.hidden;
  state->intermediate = d.intermediate;
  state->wide = is_gated(d.activation) ? 2 * d.intermediate : d.intermediate;
  state->weights_dtype = d.weights_dtype;
  state->x_dtype = d.x_dtype;
  state->y_dtype = d.y_dtype;
  state->ids_dtype = d.ids_dtype;
  state->activation = d.activation;
  state->layout = d.layout;
  state->limit = static_cast<float>(d.limit);
  state->weight_before = d.weight_before != 0;
  state->n_ids = d.expert_map != nullptr ? d.expert_map->shape[0] : d.n_experts - d.n_shared;
  state->bytes = matrix_bytes(d.weights_dtype, d.n_experts, state->wide, d.hidden) +
                 matrix_bytes(d.weights_dtype, d.n_experts, d.hidden, d.intermediate);
  for (const chorus_tensor *t : {d.gate_up_bias, d.down_bias, d.expert_map}) state->bytes += packed_bytes(t);
  state->memory = host->allocate(host->self, state->bytes, kAlignment);
  if (state->memory == nullptr) {
    const chorus_status status = report(host, slot, CHORUS_RESOURCE_EXHAUSTED, "no memory for %llu bytes of expert weights",
                                        static_cast<unsigned long long>(state->bytes));
    experts_release(state);
    return status;
  }
  auto *to = static_cast<char *>(state->memory);
  state->gate_up = pack_matrices({d.gate_up, d.weights_dtype}, d.n_experts, state->wide, d.hidden, to);
  state->down = pack_matrices({d.down, d.weights_dtype}, d.n_experts, d.hidden, d.intermediate, to);
  state->gate_up_bias = reinterpret_cast<const float *>(pack(d.gate_up_bias, to));
  state->down_bias = reinterpret_cast<const float *>(pack(d.down_bias, to));
  state->map = reinterpret_cast<const int32_t *>(pack(d.expert_map, to));
  const chorus_status status = check_map(*state, slot);
  if (status != CHORUS_OK) {
    experts_release(state);
    return status;
  }
  *out = state;
  return CHORUS_OK;
}

uint64_t experts_prepared_bytes(const void *prepared) { return static_cast<const ExpertsState *>(prepared)->bytes; }

// ---- Run ----

// out = x times a packed matrix [rows, columns]: every column sums its products in the order of the rows, in f32,
// multiply then add. The loop over columns is the inner one, so that it vectorises without changing that order.
template <typename Weight, typename Widen>
void multiply(const float *x, int64_t rows, const Weight *matrix, int64_t columns, const Widen &widen, float *out) {
  constexpr int64_t kColumns = 512;
  for (int64_t begin = 0; begin < columns; begin += kColumns) {
    const int64_t end = std::min(begin + kColumns, columns);
    std::fill(out + begin, out + end, 0.0f);
    for (int64_t r = 0; r < rows; ++r) {
      const Weight *w = matrix + r * columns;
      for (int64_t c = begin; c < end; ++c) out[c] += x[r] * widen(w[c]);
    }
  }
}

void multiply(chorus_dtype weights, const float *x, int64_t rows, const char *matrices, int64_t index, int64_t columns,
              float *out) {
  if (stored_dtype(weights) == CHORUS_F32) {
    const auto *matrix = reinterpret_cast<const float *>(matrices) + index * rows * columns;
    return multiply(x, rows, matrix, columns, [](float w) { return w; }, out);
  }
  const auto *matrix = reinterpret_cast<const uint16_t *>(matrices) + index * rows * columns;
  multiply(x, rows, matrix, columns, f32_from_bf16, out);
}

void add_bias(const float *biases, int64_t index, int64_t count, float *out) {
  if (biases == nullptr) return;
  for (int64_t i = 0; i < count; ++i) out[i] = out[i] + biases[index * count + i];
}

struct Scratch {
  float *x, *gate_up, *h, *out, *y;  // H, 2I, I, H, H
};

// out = down(act(gate x, up x)) of one expert.
void run_expert(const ExpertsState &s, int32_t expert, const Scratch &scratch) {
  const chorus_dtype operand = operand_dtype(s.weights_dtype);
  multiply(s.weights_dtype, scratch.x, s.hidden, s.gate_up, expert, s.wide, scratch.gate_up);
  add_bias(s.gate_up_bias, expert, s.wide, scratch.gate_up);
  for (int64_t i = 0; i < s.intermediate; ++i) {
    const GateUpRows at = gate_up_rows(s.activation, s.layout, s.intermediate, i);
    const float gate = at.gate >= 0 ? scratch.gate_up[at.gate] : 0.0f;
    scratch.h[i] = rounded_operand(operand, activate(s.activation, s.limit, gate, scratch.gate_up[at.up]));
  }
  multiply(s.weights_dtype, scratch.h, s.intermediate, s.down, expert, s.hidden, scratch.out);
  add_bias(s.down_bias, expert, s.hidden, scratch.out);
}

// The local expert of `id`, -1 for none; sets `status` where no expert has that id.
int32_t local_expert(const ExpertsState &s, int64_t id, int32_t &status) {
  if (id < 0) return -1;
  if (id >= s.n_ids) {
    status = CHORUS_ROW_BAD_TOKEN;
    return -1;
  }
  return s.map != nullptr ? s.map[id] : static_cast<int32_t>(id);
}

// y += weight * expert(x).
void add_expert(const ExpertsState &s, const void *x_row, int32_t expert, float weight, const Scratch &scratch) {
  const chorus_dtype operand = operand_dtype(s.weights_dtype);
  const float before = s.weight_before ? weight : 1.0f, after = s.weight_before ? 1.0f : weight;
  for (int64_t i = 0; i < s.hidden; ++i)
    scratch.x[i] = rounded_operand(operand, before * load_f32(s.x_dtype, x_row, i));
  run_expert(s, expert, scratch);
  for (int64_t i = 0; i < s.hidden; ++i) scratch.y[i] = scratch.y[i] + after * scratch.out[i];
}

void run_token(const ExpertsState &s, const chorus_experts_args &args, int64_t token, const Scratch &scratch) {
  int32_t status = CHORUS_ROW_OK;
  std::fill(scratch.y, scratch.y + s.hidden, 0.0f);
  const void *x_row = row_of(*args.x, token);
  const int64_t id_step = stride_of(*args.ids, 1), weight_step = stride_of(*args.weights, 1);
  for (int32_t j = 0; j < s.k; ++j) {
    const int64_t id = integer_at(s.ids_dtype, row_of(*args.ids, token), j * id_step);
    const int32_t expert = local_expert(s, id, status);
    const float weight = static_cast<const float *>(row_of(*args.weights, token))[j * weight_step];
    if (expert >= 0 && weight != 0.0f) add_expert(s, x_row, expert, weight, scratch);
  }
  for (int32_t e = s.n_experts - s.n_shared; e < s.n_experts; ++e) add_expert(s, x_row, e, 1.0f, scratch);
  void *y_row = row_of(*args.y, token);
  for (int64_t i = 0; i < s.hidden; ++i) store_f32(s.y_dtype, y_row, i, scratch.y[i]);
  put_integer(args.status, token, status);
}

uint64_t scratch_bytes(const ExpertsState &s) {
  return aligned(sizeof(float) * static_cast<uint64_t>(3 * (s.hidden + s.intermediate)));
}

int64_t pieces_of(const chorus_experts_args &args) { return std::min(args.tokens, kMostPieces); }

uint64_t experts_workspace(const void *prepared, const void *args) {
  const int64_t pieces = pieces_of(*static_cast<const chorus_experts_args *>(args));
  return static_cast<uint64_t>(pieces) * scratch_bytes(*static_cast<const ExpertsState *>(prepared));
}

chorus_status experts_run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot) {
  const auto &s = *static_cast<const ExpertsState *>(prepared);
  const auto &args = *static_cast<const chorus_experts_args *>(args_pointer);
  const int64_t pieces = pieces_of(args);
  parallel_for(s.host, pieces, [&](int64_t piece) {
    auto *floats = reinterpret_cast<float *>(static_cast<char *>(exec->workspace) +
                                             static_cast<uint64_t>(piece) * scratch_bytes(s));
    float *h = floats + 3 * s.hidden;
    const Scratch scratch{floats, h + s.intermediate, h, floats + s.hidden, floats + 2 * s.hidden};
    for (int64_t t = piece; t < args.tokens; t += pieces) run_token(s, args, t, scratch);
  });
  return CHORUS_OK;
}

}  // namespace

const chorus_kernel kExpertsFfn = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                   CHORUS_OP_EXPERTS_FFN,
                                   1,
                                   0,
                                   "experts_ffn",
                                   experts_score,
                                   experts_prepare,
                                   experts_workspace,
                                   experts_run,
                                   experts_release,
                                   experts_prepared_bytes};

}  // namespace chorus::reference
