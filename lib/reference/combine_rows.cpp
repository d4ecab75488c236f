// SPDX-License-Identifier: Apache-2.0
// combine.rows: N score rows -> log-prob row, argmax, sample, log-probs of given tokens, status; one task per row.
// Semantics: docs/numerics.md, "Combining". Cost per row: a few f64 exponentials per model and token; no workspace.
#include "reference/combine_rows.h"

#include <cmath>
#include <limits>

#include "reference/combine_mixture.h"

namespace chorus::reference {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct CombineModel {
  chorus_score_kind kind;
  chorus_dtype dtype;
  int64_t n_valid;
  double weight, temperature;
};

struct CombineState {
  const chorus_host *host;
  chorus_combine_rule rule;
  int32_t n_models;
  int64_t n_tokens;
  bool weight_rows;
  CombineModel models[CHORUS_COMBINE_MAX_MODELS];
};

double weight_of(const CombineState &state, const chorus_combine_args &args, int64_t row, int32_t model) {
  if (args.weights == nullptr) return state.models[model].weight;
  const auto *weights = static_cast<const float *>(state.weight_rows ? row_of(*args.weights, row) : args.weights->data);
  return weights[model * stride_of(*args.weights, state.weight_rows ? 1 : 0)];
}

double temperature_of(const CombineState &state, const chorus_combine_args &args, int32_t model) {
  return args.temperatures == nullptr ? state.models[model].temperature : f32_at(*args.temperatures, model);
}

// Collects the models of nonzero weight; the others are not touched. False: a weight or temperature makes no sense.
bool collect(const CombineState &state, const chorus_combine_args &args, int64_t row, Mixture &mix) {
  for (int32_t i = 0; i < state.n_models; ++i) {
    const CombineModel &from = state.models[i];
    const double weight = weight_of(state, args, row, i);
    if (weight == 0.0) continue;
    if (!std::isfinite(weight) || (weight < 0 && state.rule == CHORUS_COMBINE_LINEAR)) return false;
    if (args.scores[i] == nullptr) return false;
    double temperature = temperature_of(state, args, i);
    if (!(temperature >= 0)) return false;
    if (temperature > 0 && temperature < kLeastTemperature) temperature = kLeastTemperature;
    ModelRow &to = mix.models[mix.count++];
    to = ModelRow{};
    to.scores = row_of(*args.scores[i], row);
    to.dtype = from.dtype;
    to.kind = from.kind;
    to.n_valid = from.n_valid;
    to.weight = weight;
    to.temperature = temperature;
  }
  return mix.count > 0 || state.rule != CHORUS_COMBINE_LINEAR;
}

// ---- Outputs of a row ----

void write_choice(const chorus_tensor *token_out, const chorus_tensor *log_prob_out, int64_t row, int64_t token,
                  double log_prob) {
  put_integer(token_out, row, token);
  put_float(log_prob_out, row, log_prob);
}

// What rounds to -0 leaves as +0: at most half the smallest number of the format.
double without_negative_zero(chorus_dtype dtype, double log_prob) {
  const double nothing = dtype == CHORUS_F16 ? 0x1p-25 : dtype == CHORUS_BF16 ? 0x1p-134 : 0x1p-150;
  return log_prob <= 0 && log_prob >= -nothing ? 0.0 : log_prob;
}

void write_log_probs(const chorus_tensor *out, int64_t row, int64_t n_tokens, const auto &value) {
  if (out == nullptr) return;
  const chorus_dtype dtype = dtype_of(*out);
  void *to = row_of(*out, row);
  for (int64_t v = 0; v < n_tokens; ++v) store_f64(dtype, to, v, without_negative_zero(dtype, value(v)));
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
    store_f64(CHORUS_F32, row_of(*args.token_log_probs, row), j * out_step, outside ? kNaN : without_negative_zero(CHORUS_F32, value(token)));
  }
  return bad;
}

// A row without a distribution: every log-prob is `value`, every token -1.
bool write_invalid(const chorus_combine_args &args, int64_t row, int64_t n_tokens, double value) {
  const auto constant = [&](int64_t) { return value; };
  write_choice(args.argmax, args.argmax_log_prob, row, -1, value);
  write_choice(args.sample, args.sample_log_prob, row, -1, value);
  const bool bad_token = write_token_log_probs(args, row, n_tokens, constant);
  write_log_probs(args.log_probs, row, n_tokens, constant);
  return bad_token;
}

Draw draw_of(const chorus_combine_args &args, int64_t row) {
  const int64_t id = args.row_ids != nullptr ? integer_at(*args.row_ids, row) : row;
  const uint64_t step = args.steps != nullptr ? static_cast<uint64_t>(integer_at(*args.steps, row)) : args.step;
  return draw(args.seed, static_cast<uint64_t>(id), step);
}

// The log-prob row comes last: it may overwrite the scores of model 0, token by token.
bool write_valid(const chorus_combine_args &args, int64_t row, Mixture &mix) {
  const bool asks_log_probs = args.log_probs != nullptr || args.argmax_log_prob != nullptr ||
                              args.sample_log_prob != nullptr || args.token_log_probs != nullptr;
  if (asks_log_probs) prepare_log_probs(mix);
  const auto value = [&](int64_t v) { return log_prob(mix, v); };
  const auto write = [&](const chorus_tensor *token_out, const chorus_tensor *log_prob_out, int64_t token) {
    write_choice(token_out, log_prob_out, row, token,
                 log_prob_out != nullptr ? without_negative_zero(CHORUS_F32, value(token)) : 0.0);
  };
  if (args.argmax != nullptr || args.argmax_log_prob != nullptr) write(args.argmax, args.argmax_log_prob, argmax(mix));
  if (args.sample != nullptr || args.sample_log_prob != nullptr)
    write(args.sample, args.sample_log_prob, sample(mix, draw_of(args, row)));
  const bool bad_token = write_token_log_probs(args, row, mix.n_tokens, value);
  write_log_probs(args.log_probs, row, mix.n_tokens, value);
  return bad_token;
}

void run_row(const CombineState &state, const chorus_combine_args &args, int64_t row) {
  Mixture mix;
  mix.rule = state.rule;
  mix.n_tokens = state.n_tokens;
  bool bad_token;
  if (!collect(state, args, row, mix)) {
    mix.status = CHORUS_ROW_BAD_WEIGHT;
    bad_token = write_invalid(args, row, state.n_tokens, kNaN);
  } else if (scan(mix)) {
    bad_token = write_valid(args, row, mix);
  } else {
    bad_token = write_invalid(args, row, state.n_tokens, (mix.status & CHORUS_ROW_NAN) != 0 ? kNaN : -kInfinity64);
  }
  put_integer(args.status, row, mix.status | (bad_token ? CHORUS_ROW_BAD_TOKEN : 0));
}

// ---- The kernel ----

chorus_status combine_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_combine_desc *>(desc);
  auto *state = make_state<CombineState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
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

uint64_t combine_workspace(const void *, const void *) { return 0; }

chorus_status combine_run(const void *prepared, const void *args_pointer, const chorus_exec *, chorus_error_slot) {
  const auto &state = *static_cast<const CombineState *>(prepared);
  const auto &args = *static_cast<const chorus_combine_args *>(args_pointer);
  parallel_for(state.host, args.rows, [&](int64_t row) { run_row(state, args, row); });
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

}  // namespace chorus::reference
