// SPDX-License-Identifier: Apache-2.0
// combine.rows: N score rows -> log-prob row, argmax, sample, log-probs of given tokens, status. Rows run side by side;
// fewer rows than threads share the threads block by block.
#include <atomic>
#include <cmath>
#include <limits>

#include "cpu/combine_row.h"

namespace chorus::cpu {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Rows in flight at once, each with a slot of the workspace.
constexpr int64_t kMostSlots = 64;

struct CombineModel {
  chorus_score_kind kind;
  chorus_dtype dtype;
  int64_t n_valid;
  double weight, temperature;
};

struct CombineState {
  const chorus_host *host;
  BlockOps ops;
  chorus_combine_rule rule;
  int32_t n_models;
  int64_t n_tokens;
  bool weight_rows;
  CombineModel models[CHORUS_COMBINE_MAX_MODELS];
};

bool is_linear(const CombineState &state) { return state.rule == CHORUS_COMBINE_LINEAR; }

// Bits of the integer weights floor(2^bits exp(z - max)): 45, fewer where 2^18 < V so that V 2^bits < 2^64.
int token_bits(int64_t n_tokens) {
  int bits = 45;
  for (int64_t size = int64_t{1} << 18; size < n_tokens; size *= 2) --bits;
  return bits;
}

// ---- Workspace: a slot per row in flight ----

struct Layout {
  uint64_t keys, scans, tops, sums, slot;  // bytes

  explicit Layout(const CombineState &state) {
    const auto tokens = static_cast<uint64_t>(state.n_tokens);
    const uint64_t blocks = (tokens + kBlock - 1) / kBlock;
    keys = is_linear(state) ? 0 : aligned(tokens * sizeof(float));
    scans = aligned(static_cast<uint64_t>(state.n_models) * blocks * sizeof(float));
    tops = aligned(blocks * sizeof(float));
    sums = aligned(blocks * (kBlock / kPiece) * sizeof(uint64_t));
    slot = keys + 2 * scans + tops + sums;
  }
  Slot at(void *workspace, int64_t index) const {
    char *keys_at = static_cast<char *>(workspace) + static_cast<uint64_t>(index) * slot;
    char *highs_at = keys_at + keys, *lows_at = highs_at + scans, *tops_at = lows_at + scans, *sums_at = tops_at + tops;
    return {reinterpret_cast<float *>(keys_at), reinterpret_cast<float *>(highs_at), reinterpret_cast<float *>(lows_at),
            reinterpret_cast<float *>(tops_at), reinterpret_cast<uint64_t *>(sums_at)};
  }
};

int64_t slots_of(int64_t rows) { return rows < kMostSlots ? rows : kMostSlots; }

// ---- Inputs of a row ----

double weight_of(const CombineState &state, const chorus_combine_args &args, int64_t row, int32_t model) {
  if (args.weights == nullptr) return state.models[model].weight;
  const auto *weights = static_cast<const float *>(state.weight_rows ? row_of(*args.weights, row) : args.weights->data);
  return weights[model * stride_of(*args.weights, state.weight_rows ? 1 : 0)];
}

// Collects the models of nonzero weight; the others are not touched. False: a weight or temperature makes no sense.
bool collect(const CombineState &state, const chorus_combine_args &args, int64_t index, Row &row) {
  for (int32_t i = 0; i < state.n_models; ++i) {
    const CombineModel &from = state.models[i];
    const double weight = weight_of(state, args, index, i);
    if (weight == 0.0) continue;
    double temperature = args.temperatures == nullptr ? from.temperature : f32_at(*args.temperatures, i);
    if (!std::isfinite(weight) || (weight < 0 && is_linear(state)) || args.scores[i] == nullptr || !(temperature >= 0))
      return false;
    if (temperature > 0 && temperature < kLeastTemperature) temperature = kLeastTemperature;
    RowModel &to = row.models[row.count++];
    to = RowModel{};
    to.scores = row_of(*args.scores[i], index);
    to.dtype = from.dtype;
    to.kind = from.kind;
    to.n_valid = from.n_valid;
    to.weight = weight;
    to.temperature = temperature;
  }
  return row.count > 0 || !is_linear(state);
}

// Philox at (seed, row id, step): words 0 and 1 choose the token, 2 and 3 the model.
Draw draw_of(const chorus_combine_args &args, int64_t row) {
  const auto id = static_cast<uint64_t>(args.row_ids != nullptr ? integer_at(*args.row_ids, row) : row);
  const uint64_t step = args.steps != nullptr ? static_cast<uint64_t>(integer_at(*args.steps, row)) : args.step;
  const auto low = [](uint64_t x) { return static_cast<uint32_t>(x); };
  const auto high = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
  const uint32_t counter[4] = {low(id), high(id), low(step), high(step)};
  const uint32_t key[2] = {low(args.seed), high(args.seed)};
  uint32_t words[4];
  chorus_philox4x32(counter, key, words);
  return {words[0] | uint64_t{words[1]} << 32, words[2] | uint64_t{words[3]} << 32};
}

// ---- Outputs of a row ----

void write_choice(const chorus_tensor *token_out, const chorus_tensor *log_prob_out, int64_t row, int64_t token,
                  double log_prob) {
  put_integer(token_out, row, token);
  put_float(log_prob_out, row, log_prob);
}

// Log-probs of the tokens asked for; true where one is outside the vocabulary.
bool write_token_log_probs(const chorus_combine_args &args, int64_t row, int64_t n_tokens, const auto &value) {
  if (args.tokens == nullptr || args.token_log_probs == nullptr) return false;
  const chorus_tensor &tokens = *args.tokens;
  const int64_t step = stride_of(tokens, 1), out_step = stride_of(*args.token_log_probs, 1);
  bool bad = false;
  for (int64_t j = 0; j < tokens.shape[1]; ++j) {
    const int64_t token = integer_at(dtype_of(tokens), row_of(tokens, row), j * step);
    const bool outside = token < 0 || token >= n_tokens;
    bad |= outside;
    plugin::store_f64(CHORUS_F32, row_of(*args.token_log_probs, row), j * out_step, outside ? kNaN : value(token));
  }
  return bad;
}

// A row without a distribution: every log-prob is `value`, every token -1.
bool write_invalid(const chorus_combine_args &args, int64_t row, int64_t n_tokens, double value) {
  write_choice(args.argmax, args.argmax_log_prob, row, -1, value);
  write_choice(args.sample, args.sample_log_prob, row, -1, value);
  const bool bad_token = write_token_log_probs(args, row, n_tokens, [&](int64_t) { return value; });
  if (args.log_probs != nullptr) {
    for (int64_t v = 0; v < n_tokens; ++v) plugin::store_f64(dtype_of(*args.log_probs), row_of(*args.log_probs, row), v, value);
  }
  return bad_token;
}

// The log-prob row comes last: it may overwrite the scores of model 0, block by block.
bool write_valid(const CombineState &state, const chorus_combine_args &args, int64_t index, Row &row) {
  const bool linear = is_linear(state);
  int64_t best = -1, drawn = -1;
  if (args.argmax != nullptr || args.argmax_log_prob != nullptr) best = linear ? linear_argmax(row) : log_linear_argmax(row);
  if (args.sample != nullptr || args.sample_log_prob != nullptr) {
    const Draw draw = draw_of(args, index);
    drawn = linear ? linear_sample(row, draw) : log_linear_sample(row, draw);
  }
  if (args.log_probs != nullptr || args.argmax_log_prob != nullptr || args.sample_log_prob != nullptr ||
      args.token_log_probs != nullptr)
    linear ? linear_prepare_log_probs(row) : log_linear_prepare_log_probs(row);
  const auto value = [&](int64_t v) {
    return without_negative_zero(CHORUS_F32, linear ? linear_log_prob(row, v) : log_linear_log_prob(row, v));
  };
  write_choice(args.argmax, args.argmax_log_prob, index, best, args.argmax_log_prob != nullptr ? value(best) : 0.0);
  write_choice(args.sample, args.sample_log_prob, index, drawn, args.sample_log_prob != nullptr ? value(drawn) : 0.0);
  const bool bad_token = write_token_log_probs(args, index, state.n_tokens, value);
  if (args.log_probs != nullptr) {
    const chorus_dtype dtype = dtype_of(*args.log_probs);
    void *out = row_of(*args.log_probs, index);
    linear ? linear_store(row, dtype, out) : log_linear_store(row, dtype, out);
  }
  return bad_token;
}

void run_row(const CombineState &state, const chorus_combine_args &args, const Run &run, const Slot &slot, int64_t index) {
  Row row;
  row.run = &run;
  row.slot = slot;
  bool bad_token;
  if (!collect(state, args, index, row)) {
    row.status = CHORUS_ROW_BAD_WEIGHT;
    bad_token = write_invalid(args, index, state.n_tokens, kNaN);
  } else {
    scan_models(row);
    if (is_linear(state) ? linear_begin(row) : log_linear_begin(row)) {
      bad_token = write_valid(state, args, index, row);
    } else {
      bad_token = write_invalid(args, index, state.n_tokens, (row.status & CHORUS_ROW_NAN) != 0 ? kNaN : -kInfinity);
    }
  }
  put_integer(args.status, index, row.status | (bad_token ? CHORUS_ROW_BAD_TOKEN : 0));
}

// ---- The kernel ----

chorus_status combine_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_combine_desc *>(desc);
  auto *state = make_state<CombineState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->ops = block_ops(device);
  state->rule = d.rule;
  state->n_models = d.n_models;
  state->n_tokens = d.n_tokens;
  state->weight_rows = d.weight_rows != 0;
  for (int32_t i = 0; i < d.n_models; ++i) {
    const chorus_combine_model &m = *d.models[i];
    state->models[i] = {m.kind, m.dtype, m.n_valid, m.weight, m.temperature};
  }
  *out = state;
  return CHORUS_OK;
}

uint64_t combine_workspace(const void *prepared, const void *args) {
  const Layout layout(*static_cast<const CombineState *>(prepared));
  return static_cast<uint64_t>(slots_of(static_cast<const chorus_combine_args *>(args)->rows)) * layout.slot;
}

chorus_status combine_run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot) {
  const auto &state = *static_cast<const CombineState *>(prepared);
  const auto &args = *static_cast<const chorus_combine_args *>(args_pointer);
  const Layout layout(state);
  const int64_t threads = state.host->thread_count(state.host->self);
  Run run = {state.host, state.ops, state.n_tokens, token_bits(state.n_tokens), args.rows < threads};
  if (run.split) {
    for (int64_t row = 0; row < args.rows; ++row) run_row(state, args, run, layout.at(exec->workspace, 0), row);
    return CHORUS_OK;
  }
  // As many tasks as threads, so that few slots stay in the caches; each takes rows until none is left.
  std::atomic<int64_t> next{0};
  const int64_t slots = slots_of(args.rows);
  parallel_for(state.host, slots < threads ? slots : threads, [&](int64_t task) {
    for (int64_t row; (row = next.fetch_add(1)) < args.rows;)
      run_row(state, args, run, layout.at(exec->workspace, task), row);
  });
  return CHORUS_OK;
}

}  // namespace

const chorus_kernel kCombineRows = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                    CHORUS_OP_COMBINE_ROWS,
                                    1,
                                    0,
                                    "combine_rows",
                                    combine_score,
                                    combine_prepare,
                                    combine_workspace,
                                    combine_run,
                                    free_state<CombineState>,
                                    nullptr};

}  // namespace chorus::cpu
