// SPDX-License-Identifier: Apache-2.0
// experts.ffn: y_t = sum_j weight_tj * down_e(silu(gate_e x_t) * up_e x_t), one token at a time; the plain f32-
// accumulating computation that other backends' errors are measured against. docs/numerics.md, "Experts".
// Cost: 6 * H * I flops per slot that counts; workspace: 3(H + I) floats per piece of tokens.
#include <algorithm>
#include <cstring>

#include "chorus/exact_math.h"
#include "reference/backend.h"

namespace chorus::reference {
namespace {

constexpr int64_t kMostPieces = 16;  // tokens are split into at most so many tasks

struct ExpertsState {
  const chorus_host *host;
  int32_t n_experts, k;
  int64_t hidden, intermediate;
  chorus_dtype weights_dtype, x_dtype, y_dtype, ids_dtype;
  chorus_gate_layout layout;
  bool weight_before;
  int64_t n_ids;  // ids an expert_map knows, or n_experts
  // One block of memory, compact; matrices are transposed: [E, H, 2I] and [E, I, H].
  void *memory;
  uint64_t bytes;
  const char *gate_up, *down;
  const float *gate_up_bias, *down_bias;  // NULL: none
  const int32_t *map;                     // NULL: identity
};

// ---- Score ----

int32_t experts_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  const auto &d = *static_cast<const chorus_experts_desc *>(desc);
  const auto f32_or_bf16 = [](chorus_dtype dtype) { return dtype == CHORUS_F32 || dtype == CHORUS_BF16; };
  if (d.n_experts < 1) return refuse(why, bytes, "n_experts is %d; supported: 1 and above", d.n_experts);
  if (d.k < 1) return refuse(why, bytes, "k is %d; supported: 1 and above", d.k);
  if (d.hidden < 1 || d.intermediate < 1)
    return refuse(why, bytes, "hidden is %lld, intermediate is %lld; supported: 1 and above",
                  static_cast<long long>(d.hidden), static_cast<long long>(d.intermediate));
  if (!f32_or_bf16(d.weights_dtype))
    return refuse(why, bytes, "weights_dtype is 0x%x; supported: f32, bf16", d.weights_dtype);
  if (!f32_or_bf16(d.x_dtype)) return refuse(why, bytes, "x_dtype is 0x%x; supported: f32, bf16", d.x_dtype);
  if (!f32_or_bf16(d.y_dtype)) return refuse(why, bytes, "y_dtype is 0x%x; supported: f32, bf16", d.y_dtype);
  if (d.ids_dtype != CHORUS_I32 && d.ids_dtype != CHORUS_I64)
    return refuse(why, bytes, "ids_dtype is 0x%x; supported: i32, i64", d.ids_dtype);
  if (d.activation != CHORUS_ACTIVATION_SWIGLU)
    return refuse(why, bytes, "activation is %d; supported: swiglu (0)", d.activation);
  if (d.layout < CHORUS_GATE_UP_CONCATENATED || d.layout > CHORUS_GATE_UP_INTERLEAVED)
    return refuse(why, bytes, "layout is %d; supported: gate-up, up-gate, interleaved (0 to 2)", d.layout);
  if (d.limit != 0.0) return refuse(why, bytes, "limit is %g; supported: 0 (off)", d.limit);
  return kScore;
}

// ---- Prepare ----

// Bytes of the compact copy of `t`, 0 for NULL.
uint64_t packed_bytes(const chorus_tensor *t) {
  if (t == nullptr) return 0;
  uint64_t bytes = bytes_of(dtype_of(*t));
  for (int32_t i = 0; i < t->ndim; ++i) bytes *= static_cast<uint64_t>(t->shape[i]);
  return aligned(bytes);
}

// Copies a tensor of up to three dimensions, any strides, to `to`; moves `to` past it. NULL stays NULL. Matrices are
// transposed, so that run() reads them in the order in which it multiplies.
const char *pack(const chorus_tensor *t, char *&to) {
  if (t == nullptr) return nullptr;
  const uint64_t size = bytes_of(dtype_of(*t));
  const int last = t->ndim - 1;
  const auto axis = [&](int i) { return i >= 0 ? t->shape[i] : 1; };
  const auto stride = [&](int i) { return i >= 0 ? stride_of(*t, i) : 0; };
  const int rows = t->ndim == 3 ? last - 1 : last, columns = t->ndim == 3 ? last : last - 1;
  const char *begin = to;
  char *at = to;
  for (int64_t a = 0; a < axis(last - 2); ++a) {
    for (int64_t c = 0; c < axis(columns); ++c) {
      const auto *from = static_cast<const char *>(t->data) +
                         (a * stride(last - 2) + c * stride(columns)) * static_cast<int64_t>(size);
      for (int64_t r = 0; r < axis(rows); ++r, at += size)
        std::memcpy(at, from + r * stride(rows) * static_cast<int64_t>(size), size);
    }
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
    if (state.map[i] >= state.n_experts || state.map[i] < -1)
      return report(state.host, slot, CHORUS_INVALID_ARGUMENT, "expert_map[%lld] is %d; allowed: -1 to %d",
                    static_cast<long long>(i), state.map[i], state.n_experts - 1);
  }
  return CHORUS_OK;
}

chorus_status experts_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_experts_desc *>(desc);
  const chorus_host *host = device->host;
  auto *state = make_state<ExpertsState>(host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  *state = {host,      d.n_experts, d.k,      d.hidden,  d.intermediate, d.weights_dtype, d.x_dtype, d.y_dtype,
            d.ids_dtype, d.layout,  d.weight_before != 0, d.n_experts, nullptr, 0, nullptr, nullptr, nullptr, nullptr, nullptr};
  const chorus_tensor *const tensors[] = {d.gate_up, d.down, d.gate_up_bias, d.down_bias, d.expert_map};
  for (const chorus_tensor *t : tensors) state->bytes += packed_bytes(t);
  state->memory = host->allocate(host->self, state->bytes, kAlignment);
  if (state->memory == nullptr) {
    const chorus_status status = report(host, slot, CHORUS_RESOURCE_EXHAUSTED, "no memory for %llu bytes of expert weights",
                                        static_cast<unsigned long long>(state->bytes));
    experts_release(state);
    return status;
  }
  auto *to = static_cast<char *>(state->memory);
  state->gate_up = pack(d.gate_up, to);
  state->down = pack(d.down, to);
  state->gate_up_bias = reinterpret_cast<const float *>(pack(d.gate_up_bias, to));
  state->down_bias = reinterpret_cast<const float *>(pack(d.down_bias, to));
  state->map = reinterpret_cast<const int32_t *>(pack(d.expert_map, to));
  if (d.expert_map != nullptr) state->n_ids = d.expert_map->shape[0];
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

void multiply(chorus_dtype dtype, const float *x, int64_t rows, const char *matrices, int64_t index, int64_t columns,
              float *out) {
  if (dtype == CHORUS_F32) {
    const auto *matrix = reinterpret_cast<const float *>(matrices) + index * rows * columns;
    return multiply(x, rows, matrix, columns, [](float w) { return w; }, out);
  }
  const auto *matrix = reinterpret_cast<const uint16_t *>(matrices) + index * rows * columns;
  multiply(x, rows, matrix, columns, f32_from_bf16, out);
}

// Operands of a multiplication have the weights' dtype.
float operand(chorus_dtype weights_dtype, float x) {
  return weights_dtype == CHORUS_BF16 ? f32_from_bf16(bf16_from_f32(x)) : x;
}

struct Columns {
  int64_t gate, up;
};

Columns columns_of(const ExpertsState &s, int64_t i) {
  switch (s.layout) {
    case CHORUS_UP_GATE_CONCATENATED: return {s.intermediate + i, i};
    case CHORUS_GATE_UP_INTERLEAVED: return {2 * i, 2 * i + 1};
    default: return {i, s.intermediate + i};
  }
}

void add_bias(const float *biases, int64_t index, int64_t count, float *out) {
  if (biases == nullptr) return;
  for (int64_t i = 0; i < count; ++i) out[i] = out[i] + biases[index * count + i];
}

struct Scratch {
  float *x, *gate_up, *h, *out, *y;  // H, 2I, I, H, H
};

// out = down(silu(gate x) * up x) of one expert.
void run_expert(const ExpertsState &s, int32_t expert, const Scratch &scratch) {
  const int64_t both = 2 * s.intermediate;
  multiply(s.weights_dtype, scratch.x, s.hidden, s.gate_up, expert, both, scratch.gate_up);
  add_bias(s.gate_up_bias, expert, both, scratch.gate_up);
  for (int64_t i = 0; i < s.intermediate; ++i) {
    const Columns at = columns_of(s, i);
    const float gate = scratch.gate_up[at.gate], up = scratch.gate_up[at.up];
    scratch.h[i] = operand(s.weights_dtype, gate * chorus_exact_sigmoid(gate) * up);
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

void run_token(const ExpertsState &s, const chorus_experts_args &args, int64_t token, const Scratch &scratch) {
  int32_t status = CHORUS_ROW_OK;
  std::fill(scratch.y, scratch.y + s.hidden, 0.0f);
  const void *x_row = row_of(*args.x, token);
  const int64_t id_step = stride_of(*args.ids, 1), weight_step = stride_of(*args.weights, 1);
  for (int32_t j = 0; j < s.k; ++j) {
    const int64_t id = integer_at(s.ids_dtype, row_of(*args.ids, token), j * id_step);
    const int32_t expert = local_expert(s, id, status);
    const float weight = static_cast<const float *>(row_of(*args.weights, token))[j * weight_step];
    if (expert < 0 || weight == 0.0f) continue;
    const float before = s.weight_before ? weight : 1.0f, after = s.weight_before ? 1.0f : weight;
    for (int64_t i = 0; i < s.hidden; ++i)
      scratch.x[i] = operand(s.weights_dtype, before * load_f32(s.x_dtype, x_row, i));
    run_expert(s, expert, scratch);
    for (int64_t i = 0; i < s.hidden; ++i) scratch.y[i] = scratch.y[i] + after * scratch.out[i];
  }
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
