// SPDX-License-Identifier: Apache-2.0
// experts.ffn: y_t = sum_j weight_tj * down_e(act(gate_e x_t, up_e x_t)). docs/numerics.md, "Experts".
// Two passes over the experts that have tokens, each cut into columns, so that every core has work whatever the imbalance:
// gate and up with the activation, then down with the weighted sum of the slots, whose columns a task owns alone.
// Cost: weights of experts with tokens once per block of tokens, 6 H I flops per slot. Same bits for any thread count;
// without oneDNN (experts with many rows, experts_gemm.h) for any batch too. Error that of f32 sums in order, one rounding
// per product and sum.
#include <algorithm>
#include <cmath>

#include "cpu/experts_gemm.h"

namespace chorus::cpu {
namespace {

constexpr int64_t kMostSlots = 128;    // of a token
constexpr int64_t kRowBlock = 96;      // rows of an expert whose gates and ups a worker holds at a time
constexpr int64_t kTaskStrips = 4;     // strips of gate and up in a task: 256 KB of bf16 weights at H = 2048
constexpr int64_t kFewSlots = 1024;    // up to here a task of the second pass takes 64 columns, above 32
constexpr int64_t kMostProducts = 1 << 20;  // floats of the second pass a worker holds, if 32 columns of y are fewer
constexpr int64_t kMostActivations = int64_t{1} << 25;  // floats of activations a block of tokens may hold
constexpr int64_t kSerialWork = 1 << 16;                // fewer elements than this are not worth waking threads

// ---- Score ----

int32_t experts_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  const auto &d = *static_cast<const chorus_experts_desc *>(desc);
  if (accept_experts(d, why, bytes) == 0) return 0;
  if (d.k + d.n_shared > kMostSlots)
    return refuse(why, bytes, "k is %d and n_shared %d; supported: together up to %d", d.k, d.n_shared,
                  static_cast<int>(kMostSlots));
  for (const chorus_tensor *t : {d.gate_up, d.down}) {  // a group is whole blocks, or a block is a group
    const int64_t group = is_quantised(d.weights_dtype) ? t->quant->group_size : 0;
    if (group % 8 != 0 || (group > kMostBlock && group % kMostBlock != 0))
      return refuse(why, bytes, "quant->group_size is %lld; supported: multiples of 8 up to %d, and of %d",
                    static_cast<long long>(group), static_cast<int>(kMostBlock), static_cast<int>(kMostBlock));
  }
  return kScore;
}

// ---- Prepare, release ----

void experts_release(void *prepared) {
  auto *state = static_cast<ExpertsState *>(prepared);
  if (state == nullptr) return;
  release_gemm(state);
  if (state->memory != nullptr) state->host->deallocate(state->host->self, state->memory, state->bytes, kAlignment);
  free_state<ExpertsState>(prepared);
}

chorus_status experts_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_experts_desc *>(desc);
  auto *state = make_state<ExpertsState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->n_experts = d.n_experts;
  state->n_shared = d.n_shared;
  state->k = d.k;
  state->slots = d.k + d.n_shared;
  state->hidden = d.hidden;
  state->intermediate = d.intermediate;
  state->weights_dtype = d.weights_dtype;
  state->operand = operand_dtype(d.weights_dtype);
  state->x_dtype = d.x_dtype;
  state->y_dtype = d.y_dtype;
  state->ids_dtype = d.ids_dtype;
  state->activation = d.activation;
  state->limit = static_cast<float>(d.limit);
  state->weight_before = d.weight_before != 0;
  state->batch_invariant = d.batch_invariant != 0;
  state->n_ids = d.n_experts - d.n_shared;
  state->multiply = pick_multiply(device, d.weights_dtype);
  state->activate = pick_activate(device);
  state->make_operand = pick_operand(device);
  state->quantise = is_quantised(d.weights_dtype) ? pick_quantise(device) : nullptr;
  state->combine = pick_combine(device);
  state->unpack = pick_unpack(device);
  state->narrow = pick_narrow(device);
  const chorus_status status = pack_experts(d, state, slot);
  if (status != CHORUS_OK) {
    experts_release(state);
    return status;
  }
  prepare_gemm(device, state);
  *out = state;
  return CHORUS_OK;
}

uint64_t experts_prepared_bytes(const void *prepared) { return static_cast<const ExpertsState *>(prepared)->bytes; }

// ---- Workspace: one block of tokens ----

struct Block {
  ExpertsPlan plan;
  const float **x_rows;  // [slots] by position
  const float **h_rows;
  float *x;        // operands: a row per token, or per position with weight_before
  float *h;        // a row per position
  float *x_integers, *h_integers;  // the same rows for integer weights
  char *x_gemm, *h_gemm;           // a row per position, for oneDNN
  int64_t gemm_experts;            // the experts it multiplies: the first of the active ones, which are in order of their rows
  char *scratch;   // of the workers: unpacked weights, then products
  int64_t scratch_bytes, band_bytes, gate_up_strips, y_columns;
  int64_t tokens;  // most of a block
  uint64_t bytes;
};

// Tokens of a block: as many as keep the activations within kMostActivations, so that the workspace of a large batch is
// bounded; 256 to 4096.
int64_t block_tokens(const ExpertsState &s, int64_t tokens) {
  const int64_t most = kMostActivations / (s.slots * s.down.depth_padded);
  return std::min(tokens, std::clamp(most, int64_t{256}, int64_t{4096}));
}

Block lay_out(const ExpertsState &s, int64_t tokens, void *memory) {
  Block b{};
  char *at = static_cast<char *>(memory);
  const auto take = [&]<typename T>(T *&to, int64_t count) {
    to = memory != nullptr ? reinterpret_cast<T *>(at + b.bytes) : nullptr;
    b.bytes += aligned(static_cast<uint64_t>(count) * sizeof(T));
  };
  b.tokens = block_tokens(s, tokens);
  const int64_t slots = b.tokens * s.slots, x_rows = s.weight_before ? slots : b.tokens;
  take(b.plan.begin, s.n_experts + 1);
  take(b.plan.active, s.n_experts);
  take(b.plan.place, slots);
  take(b.plan.slot_of, slots);
  take(b.plan.weight, slots);
  take(b.plan.expert, slots);
  take(b.x_rows, slots);
  take(b.h_rows, slots);
  take(b.x, x_rows * operand_stride(s.gate_up));
  take(b.h, slots * operand_stride(s.down));
  if (s.quantise != nullptr) {
    take(b.x_integers, x_rows * integer_stride(s.gate_up));
    take(b.h_integers, slots * integer_stride(s.down));
  }
  b.gate_up_strips = kTaskStrips;
  b.y_columns = slots <= kFewSlots ? 64 : 32;
  int64_t products = kRowBlock * kTaskStrips * kStrip;
  if (s.gemm.takes(slots)) {  // an expert can get every slot: ids may repeat
    take(b.x_gemm, slots * s.gate_up.depth_padded * s.gemm.element_bytes());
    take(b.h_gemm, slots * s.down.depth_padded * s.gemm.element_bytes());
    b.gate_up_strips = s.gemm.gate_up_strips;
    b.y_columns = std::min(s.gemm.down_strips * kStrip, std::max(b.y_columns, kMostProducts / slots / 32 * 32));
    b.band_bytes = std::max(band_bytes(s.gemm, s.gate_up, b.gate_up_strips),
                            band_bytes(s.gemm, s.down, b.y_columns / kStrip));
    products = kGemmRowBlock * b.gate_up_strips * kStrip;
  }
  products = std::max(products, slots * b.y_columns);
  b.scratch_bytes = b.band_bytes + static_cast<int64_t>(aligned(static_cast<uint64_t>(products) * sizeof(float)));
  take(b.scratch, kWorkers * b.scratch_bytes);
  return b;
}

uint64_t experts_workspace(const void *prepared, const void *args) {
  const int64_t tokens = static_cast<const chorus_experts_args *>(args)->tokens;
  return tokens > 0 ? lay_out(*static_cast<const ExpertsState *>(prepared), tokens, nullptr).bytes : 0;
}

// ---- The phases of a block ----

// body(i) for rows [0, rows) of `width` elements, on several threads when that pays.
template <typename Body>
void for_rows(const chorus_host *host, int64_t rows, int64_t width, const Body &body) {
  constexpr int64_t kRows = 16;
  if (rows * width < kSerialWork) {
    for (int64_t i = 0; i < rows; ++i) body(i);
    return;
  }
  parallel_for(host, (rows + kRows - 1) / kRows, [&](int64_t piece) {
    for (int64_t i = piece * kRows; i < std::min((piece + 1) * kRows, rows); ++i) body(i);
  });
}

// x as operands of the first multiplication, and where the rows of each position lie.
void gather(const ExpertsState &s, const chorus_experts_args &args, int64_t first, int64_t count, const Block &b) {
  const int64_t stride = operand_stride(s.gate_up), integers = s.quantise != nullptr ? integer_stride(s.gate_up) : 0;
  for_rows(s.host, s.weight_before ? b.plan.n_slots : count, s.hidden, [&](int64_t i) {
    const int64_t slot = s.weight_before ? b.plan.slot_of[i] : 0;
    const int64_t token = s.weight_before ? slot / s.slots : i;
    s.make_operand({row_of(*args.x, first + token), s.x_dtype, s.operand, s.weight_before ? b.plan.weight[slot] : 1.0f,
                    s.hidden, s.gate_up.depth_padded, b.x + i * stride});
    if (s.quantise != nullptr) s.quantise(s.gate_up, b.x + i * stride, b.x_integers + i * integers);
  });
  for (int64_t p = 0; p < b.plan.n_slots; ++p) {
    const int64_t row = s.weight_before ? p : b.plan.slot_of[p] / s.slots;
    b.x_rows[p] = s.quantise != nullptr ? b.x_integers + row * integers : b.x + row * stride;
    b.h_rows[p] = s.quantise != nullptr ? b.h_integers + p * integer_stride(s.down) : b.h + p * operand_stride(s.down);
  }
}

// Rows [begin, begin + count) of positions in oneDNN's dtype: from operands to `out`, both rows of m.
void narrow_rows(const ExpertsState &s, const PackedMatrix &m, const float *const *rows, int64_t begin, int64_t count,
                 char *out) {
  const int64_t bytes = m.depth_padded * s.gemm.element_bytes();
  for (int64_t p = begin; p < begin + count; ++p) s.narrow(rows[p], m.depth_padded, s.gemm.type, out + p * bytes);
}

int64_t count_gemm_experts(const ExpertsState &s, const ExpertsPlan &plan) {
  int64_t n = 0;
  while (n < plan.n_active && s.gemm.takes(plan.rows(plan.active[n]))) ++n;
  return n;
}

// The rows of x, or of h, of the experts that oneDNN multiplies.
void narrow_all(const ExpertsState &s, const Block &b, const PackedMatrix &m, const float *const *rows, char *out) {
  constexpr int64_t kRows = 64;
  if (b.gemm_experts == 0) return;
  const int64_t pieces = (b.plan.rows(b.plan.active[0]) + kRows - 1) / kRows;
  parallel_for(s.host, b.gemm_experts * pieces, [&](int64_t i) {
    const int32_t e = b.plan.active[i / pieces];
    const int64_t first = i % pieces * kRows, count = std::min(kRows, b.plan.rows(e) - first);
    if (count > 0) narrow_rows(s, m, rows, b.plan.begin[e] + first, count, out);
  });
}

// h = act(gate x) * up x of all positions: a task is a few strips of one expert, the fullest experts first.
void run_gate_up(const ExpertsState &s, const Block &b) {
  const int64_t per_output = is_gated(s.activation) ? 2 : 1, strips = per_output * s.down.depth_padded / kStrip;
  const int64_t chunks = (strips + b.gate_up_strips - 1) / b.gate_up_strips, stride = operand_stride(s.down);
  narrow_all(s, b, s.gate_up, b.x_rows, b.x_gemm);
  run_tasks(s.host, b.plan.n_active * chunks, [&](int64_t worker, int64_t task) {
    const int32_t expert = b.plan.active[task / chunks];
    const int64_t strip = task % chunks * b.gate_up_strips, n_strips = std::min(b.gate_up_strips, strips - strip);
    const int64_t output = strip / per_output * kStrip, outputs = n_strips / per_output * kStrip;
    const bool gemm = task / chunks < b.gemm_experts;
    const int64_t row_block = gemm ? kGemmRowBlock : kRowBlock;
    char *band = b.scratch + worker * b.scratch_bytes;
    auto *sums = reinterpret_cast<float *>(band + b.band_bytes);
    if (gemm) s.unpack(s.gate_up, expert, strip, n_strips, s.gemm.type, band);
    const float *bias = s.gate_up_bias != nullptr ? s.gate_up_bias + expert * s.gate_up.columns + strip * kStrip : nullptr;
    for (int64_t p = b.plan.begin[expert]; p < b.plan.begin[expert + 1]; p += row_block) {
      const int64_t rows = std::min(row_block, b.plan.begin[expert + 1] - p), columns = n_strips * kStrip;
      if (gemm)
        gemm_multiply(s.gemm, s.gemm.gate_up, s.gate_up, columns,
                      b.x_gemm + p * s.gate_up.depth_padded * s.gemm.element_bytes(), rows, band, sums, columns);
      else
        s.multiply(s.gate_up, expert, strip, n_strips, b.x_rows + p, rows, sums, columns, nullptr);
      s.activate({sums, n_strips * kStrip, rows, bias, b.h + p * stride + output, stride, outputs,
                  s.intermediate - output, s.operand, s.activation, s.limit});
    }
  });
}

// h as integers, for integer weights: their factors are of blocks of outputs that several tasks made.
void quantise_activations(const ExpertsState &s, const Block &b) {
  if (s.quantise == nullptr) return;
  for_rows(s.host, b.plan.n_slots, s.intermediate, [&](int64_t p) {
    s.quantise(s.down, b.h + p * operand_stride(s.down), b.h_integers + p * integer_stride(s.down));
  });
}

// y of tokens [first, first + count), columns [column, column + n), from the products of all positions in `out`.
void combine_columns(const ExpertsState &s, const chorus_experts_args &args, int64_t first, int64_t count, const Block &b,
                     const float *out, int64_t out_stride, int64_t column, int64_t n) {
  const float *rows[kMostSlots], *biases[kMostSlots];
  float weights[kMostSlots];
  const auto y_bytes = static_cast<int64_t>(bytes_of(s.y_dtype));
  for (int64_t t = 0; t < count; ++t) {
    int64_t n_rows = 0;
    for (int64_t slot = t * s.slots; slot < (t + 1) * s.slots; ++slot) {
      if (b.plan.place[slot] < 0) continue;
      rows[n_rows] = out + b.plan.place[slot] * out_stride;
      biases[n_rows] = s.down_bias != nullptr ? s.down_bias + b.plan.expert[slot] * s.down.columns + column : nullptr;
      weights[n_rows++] = s.weight_before ? 1.0f : b.plan.weight[slot];
    }
    s.combine({rows, biases, weights, n_rows, n, s.y_dtype,
               static_cast<char *>(row_of(*args.y, first + t)) + column * y_bytes});
  }
}

// y = sum of weight * down h: a task owns columns of y and multiplies them for every expert.
void run_down(const ExpertsState &s, const chorus_experts_args &args, int64_t first, int64_t count, const Block &b) {
  const int64_t tasks = (s.hidden + b.y_columns - 1) / b.y_columns;
  narrow_all(s, b, s.down, b.h_rows, b.h_gemm);
  run_tasks(s.host, tasks, [&](int64_t worker, int64_t task) {
    const int64_t column = task * b.y_columns, n = std::min(b.y_columns, s.hidden - column);
    const int64_t n_strips = (n + kStrip - 1) / kStrip;
    char *band = b.scratch + worker * b.scratch_bytes;
    auto *out = reinterpret_cast<float *>(band + b.band_bytes);
    for (int64_t i = 0; i < b.plan.n_active; ++i) {
      const int32_t e = b.plan.active[i];
      const int64_t begin = b.plan.begin[e], strip = column / kStrip;
      if (i < b.gemm_experts) {
        s.unpack(s.down, e, strip, n_strips, s.gemm.type, band);
        gemm_multiply(s.gemm, s.gemm.down, s.down, n_strips * kStrip,
                      b.h_gemm + begin * s.down.depth_padded * s.gemm.element_bytes(), b.plan.rows(e), band,
                      out + begin * b.y_columns, b.y_columns);
        continue;
      }
      const char *then = i + 1 < b.plan.n_active ? s.down.strip(b.plan.active[i + 1], strip) : nullptr;
      s.multiply(s.down, e, strip, n_strips, b.h_rows + begin, b.plan.rows(e), out + begin * b.y_columns,
                 b.y_columns, then);
    }
    combine_columns(s, args, first, count, b, out, b.y_columns, column, n);
  });
}

chorus_status experts_run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot) {
  const auto &s = *static_cast<const ExpertsState *>(prepared);
  const auto &args = *static_cast<const chorus_experts_args *>(args_pointer);
  if (args.tokens == 0) return CHORUS_OK;
  Block block = lay_out(s, args.tokens, exec->workspace);
  for (int64_t first = 0; first < args.tokens; first += block.tokens) {
    const int64_t count = std::min(block.tokens, args.tokens - first);
    plan_slots(s, args, first, count, &block.plan);
    block.gemm_experts = count_gemm_experts(s, block.plan);
    gather(s, args, first, count, block);
    run_gate_up(s, block);
    quantise_activations(s, block);
    run_down(s, args, first, count, block);
  }
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

}  // namespace chorus::cpu
