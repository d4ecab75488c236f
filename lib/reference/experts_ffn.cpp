// SPDX-License-Identifier: Apache-2.0
// experts.ffn: y_t = sum_j weight_tj * down_e(silu(gate_e x_t) * up_e x_t), one token at a time; the plain f32-
// accumulating computation that other backends' errors are measured against. docs/numerics.md, "Experts".
// Cost: 6 * H * I flops per slot that counts; workspace: 2H + I floats per piece of tokens.
#include <algorithm>
#include <cstring>

#include "chorus/exact_math.h"
#include "reference/backend.h"
#include "reference/sums.h"
#include "reference/tensor_view.h"

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
  // One block of memory, compact row-major.
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

// Copies a tensor of up to three dimensions, any strides, to `to`; moves `to` past it. NULL stays NULL.
const char *pack(const chorus_tensor *t, char *&to) {
  if (t == nullptr) return nullptr;
  const uint64_t size = bytes_of(dtype_of(*t));
  const auto axis = [&](int i) { return i >= 0 ? t->shape[i] : 1; };
  const auto stride = [&](int i) { return i >= 0 ? stride_of(*t, i) : 0; };
  const int last = t->ndim - 1;
  const char *begin = to;
  char *at = to;
  for (int64_t a = 0; a < axis(last - 2); ++a) {
    for (int64_t b = 0; b < axis(last - 1); ++b) {
      const int64_t row = a * stride(last - 2) + b * stride(last - 1);
      for (int64_t c = 0; c < axis(last); ++c, at += size) {
        const auto from = static_cast<uint64_t>(row + c * stride(last)) * size;
        std::memcpy(at, static_cast<const char *>(t->data) + from, size);
      }
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

// x . w in f32, in the order of "Reductions".
template <typename Load>
float dot(const float *x, int64_t count, const Load &load) {
  PairwiseStream<float> blocks;
  for (int64_t begin = 0; begin < count; begin += CHORUS_BLOCK) {
    const int64_t end = std::min<int64_t>(begin + CHORUS_BLOCK, count);
    float lanes[CHORUS_LANES] = {};
    int64_t i = begin;
    for (; i + CHORUS_LANES <= end; i += CHORUS_LANES) {
      for (int64_t lane = 0; lane < CHORUS_LANES; ++lane) lanes[lane] += x[i + lane] * load(i + lane);
    }
    for (int64_t lane = 0; i + lane < end; ++lane) lanes[lane] += x[i + lane] * load(i + lane);
    blocks.add(join_pairwise(lanes, CHORUS_LANES));
  }
  return blocks.join();
}

// Row `row` of a packed matrix of `columns` columns, times x.
float row_times(chorus_dtype dtype, const char *matrix, int64_t row, int64_t columns, const float *x) {
  if (dtype == CHORUS_F32) {
    const float *w = reinterpret_cast<const float *>(matrix) + row * columns;
    return dot(x, columns, [w](int64_t i) { return w[i]; });
  }
  const uint16_t *w = reinterpret_cast<const uint16_t *>(matrix) + row * columns;
  return dot(x, columns, [w](int64_t i) { return f32_from_bf16(w[i]); });
}

// Operands of a multiplication have the weights' dtype.
float operand(chorus_dtype weights_dtype, float x) {
  return weights_dtype == CHORUS_BF16 ? f32_from_bf16(bf16_from_f32(x)) : x;
}

struct Rows {
  int64_t gate, up;
};

Rows rows_of(const ExpertsState &s, int64_t i) {
  switch (s.layout) {
    case CHORUS_UP_GATE_CONCATENATED: return {s.intermediate + i, i};
    case CHORUS_GATE_UP_INTERLEAVED: return {2 * i, 2 * i + 1};
    default: return {i, s.intermediate + i};
  }
}

// h = silu(gate x) * up x of one expert.
void hidden_of(const ExpertsState &s, int32_t expert, const float *x, float *h) {
  const int64_t first = int64_t{expert} * 2 * s.intermediate;
  const auto times = [&](int64_t row) {
    const float product = row_times(s.weights_dtype, s.gate_up, first + row, s.hidden, x);
    return s.gate_up_bias != nullptr ? product + s.gate_up_bias[first + row] : product;
  };
  for (int64_t i = 0; i < s.intermediate; ++i) {
    const Rows rows = rows_of(s, i);
    const float gate = times(rows.gate), up = times(rows.up);
    h[i] = operand(s.weights_dtype, gate * chorus_exact_sigmoid(gate) * up);
  }
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

struct Scratch {
  float *x, *h, *y;
};

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
    hidden_of(s, expert, scratch.x, scratch.h);
    const int64_t first = int64_t{expert} * s.hidden;
    for (int64_t i = 0; i < s.hidden; ++i) {
      float out = row_times(s.weights_dtype, s.down, first + i, s.intermediate, scratch.h);
      if (s.down_bias != nullptr) out = out + s.down_bias[first + i];
      scratch.y[i] = scratch.y[i] + after * out;
    }
  }
  void *y_row = row_of(*args.y, token);
  for (int64_t i = 0; i < s.hidden; ++i) store_f32(s.y_dtype, y_row, i, scratch.y[i]);
  put_integer(args.status, token, status);
}

uint64_t scratch_bytes(const ExpertsState &s) {
  return aligned(sizeof(float) * static_cast<uint64_t>(2 * s.hidden + s.intermediate));
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
    const Scratch scratch{floats, floats + s.hidden, floats + s.hidden + s.intermediate};
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
