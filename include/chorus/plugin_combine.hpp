// SPDX-License-Identifier: Apache-2.0
//
// What backends that implement combine.rows share: which descriptors are whole, which are the plain ones, the weights and
// draws of a row, and how its outputs are written. Contract: docs/numerics.md, "Combining". Header-only.
#ifndef CHORUS_PLUGIN_COMBINE_HPP_
#define CHORUS_PLUGIN_COMBINE_HPP_

#include <cmath>
#include <limits>

#include "exact_math.h"
#include "plugin.hpp"

namespace chorus::plugin {

inline constexpr double kCombineNaN = std::numeric_limits<double>::quiet_NaN();
inline constexpr double kCombineInfinity = std::numeric_limits<double>::infinity();

// Temperatures above 0 and below this one count as this one: already one-hot, and nothing overflows.
inline constexpr float kLeastTemperature = 0x1p-100f;
inline constexpr float kMostCoefficient = 0x1p100f;
// Terms of keys are clamped to this, so that CHORUS_COMBINE_MAX_MODELS of them stay finite.
inline constexpr float kMostTerm = 0x1p121f;

inline float clamp(float x, float most) { return x > most ? most : x < -most ? -most : x; }

// Bits s of the integer weights floor(2^s * exp(z - max)): 45, fewer where 2^18 < V so that V * 2^s < 2^64.
inline int token_bits(int64_t n_tokens) {
  int bits = 45;
  for (int64_t size = int64_t{1} << 18; size < n_tokens; size *= 2) --bits;
  return bits;
}

// ---- Which descriptors ----

inline bool is_score_dtype(chorus_dtype dtype) {
  return dtype == CHORUS_F32 || dtype == CHORUS_F16 || dtype == CHORUS_BF16;
}

// A top-p, of a model or after combining, that removes nothing.
inline bool is_off(double probability) { return probability == 0.0 || probability == 1.0; }

// Whether weights must be >= 0.
inline bool takes_no_negative_weight(chorus_combine_rule rule) {
  return rule != CHORUS_COMBINE_LOG_LINEAR && rule != CHORUS_COMBINE_UNNORMALISED;
}

inline bool check_combine_model(const chorus_combine_desc &d, int32_t i, char *why, size_t bytes) {
  const chorus_combine_model &m = *d.models[i];
  if (m.kind < CHORUS_SCORES_LOGITS || m.kind > CHORUS_SCORES_PROBS)
    return refuse(why, bytes, "models[%d].kind is %d; supported: logits, log-probs, probs (0 to 2)", i, m.kind);
  if (!is_score_dtype(m.dtype))
    return refuse(why, bytes, "models[%d].dtype is 0x%x; supported: f32, f16, bf16", i, m.dtype);
  if (m.n_valid < 1 || m.n_valid > m.n_logits)
    return refuse(why, bytes, "models[%d].n_valid is %lld; supported: 1 to n_logits (%lld)", i,
                  static_cast<long long>(m.n_valid), static_cast<long long>(m.n_logits));
  if (m.map_offsets == nullptr && m.n_valid > d.n_tokens)
    return refuse(why, bytes, "models[%d].n_valid is %lld; supported without a map: up to n_tokens (%lld)", i,
                  static_cast<long long>(m.n_valid), static_cast<long long>(d.n_tokens));
  if (!std::isfinite(static_cast<float>(m.weight)))
    return refuse(why, bytes, "models[%d].weight is %g; supported: finite in f32", i, m.weight);
  if (m.weight < 0 && takes_no_negative_weight(d.rule))
    return refuse(why, bytes, "models[%d].weight is %g; supported by rule %d: 0 and above", i, m.weight, d.rule);
  if (!(m.temperature >= 0) || m.temperature > std::numeric_limits<float>::max())
    return refuse(why, bytes, "models[%d].temperature is %g; supported: 0 and above, finite", i, m.temperature);
  return true;
}

// What every kernel asks of a descriptor: dtypes and ranges.
inline bool check_combine(const chorus_combine_desc &d, char *why, size_t bytes) {
  if (d.n_models < 1 || d.n_models > CHORUS_COMBINE_MAX_MODELS)
    return refuse(why, bytes, "n_models is %d; supported: 1 to %d", d.n_models, CHORUS_COMBINE_MAX_MODELS);
  if (d.n_tokens < 1 || d.n_tokens > std::numeric_limits<int32_t>::max())
    return refuse(why, bytes, "n_tokens is %lld; supported: 1 to 2^31 - 1", static_cast<long long>(d.n_tokens));
  if (d.weight_rows > 1) return refuse(why, bytes, "weight_rows is %u; supported: 0, 1", d.weight_rows);
  if ((d.outputs & (CHORUS_COMBINE_OUT_LOG_PROBS | CHORUS_COMBINE_OUT_PROBS)) != 0 && !is_score_dtype(d.log_probs_dtype))
    return refuse(why, bytes, "log_probs_dtype is 0x%x; supported: f32, f16, bf16", d.log_probs_dtype);
  for (int32_t i = 0; i < d.n_models; ++i) {
    if (!check_combine_model(d, i, why, bytes)) return false;
  }
  return true;
}

// Whether the model brings scores over the output vocabulary and nothing else.
inline bool is_plain_model(const chorus_combine_desc &d, int32_t i, char *why, size_t bytes) {
  const chorus_combine_model &m = *d.models[i];
  if (!is_off(m.top_p)) return refuse(why, bytes, "models[%d].top_p is %g; supported: 0 or 1 (off)", i, m.top_p);
  if (m.top_k != 0)
    return refuse(why, bytes, "models[%d].top_k is %lld; supported: 0 (off)", i, static_cast<long long>(m.top_k));
  if (m.plausibility != 0)
    return refuse(why, bytes, "models[%d].plausibility is %g; supported: 0 (off)", i, m.plausibility);
  if (m.has_bias != 0) return refuse(why, bytes, "models[%d].has_bias is %u; supported: 0", i, m.has_bias);
  if (m.has_mask != 0) return refuse(why, bytes, "models[%d].has_mask is %u; supported: 0", i, m.has_mask);
  if (m.map_offsets != nullptr || m.map_ids != nullptr)
    return refuse(why, bytes, "models[%d] brings map_offsets or map_ids; supported: NULL (identity)", i);
  if (m.missing != CHORUS_MISSING_BY_RULE)
    return refuse(why, bytes, "models[%d].missing is %d; supported: by rule (0)", i, m.missing);
  return true;
}

// Whether the models are mixed by the linear or log-linear rule as they come.
inline bool is_plain_mixture(const chorus_combine_desc &d, char *why, size_t bytes) {
  if (d.rule != CHORUS_COMBINE_LINEAR && d.rule != CHORUS_COMBINE_LOG_LINEAR)
    return refuse(why, bytes, "rule is %d; supported: linear, log-linear (0, 1)", d.rule);
  if (d.base_model != 0) return refuse(why, bytes, "base_model is %u; supported: 0", d.base_model);
  if (d.has_neighbours != 0) return refuse(why, bytes, "has_neighbours is %u; supported: 0", d.has_neighbours);
  for (int32_t i = 0; i < d.n_models; ++i) {
    if (!is_plain_model(d, i, why, bytes)) return false;
  }
  return true;
}

// Whether nothing happens between the mixture and the outputs.
inline bool is_plain_after(const chorus_combine_desc &d, char *why, size_t bytes) {
  if (d.temperature != 1.0) return refuse(why, bytes, "temperature after combining is %g; supported: 1", d.temperature);
  if (d.has_penalties != 0) return refuse(why, bytes, "has_penalties is %u; supported: 0", d.has_penalties);
  if (d.top_k != 0)
    return refuse(why, bytes, "top_k after combining is %lld; supported: 0 (off)", static_cast<long long>(d.top_k));
  if (!is_off(d.top_p)) return refuse(why, bytes, "top_p after combining is %g; supported: 0 or 1 (off)", d.top_p);
  if (d.min_p != 0) return refuse(why, bytes, "min_p is %g; supported: 0 (off)", d.min_p);
  if (!is_off(d.typical_p)) return refuse(why, bytes, "typical_p is %g; supported: 0 or 1 (off)", d.typical_p);
  return true;
}

inline bool has_plain_outputs(const chorus_combine_desc &d, char *why, size_t bytes) {
  constexpr uint32_t kOutputs = CHORUS_COMBINE_OUT_LOG_PROBS | CHORUS_COMBINE_OUT_ARGMAX | CHORUS_COMBINE_OUT_SAMPLE |
                                CHORUS_COMBINE_OUT_TOKEN_LOG_PROBS | CHORUS_COMBINE_OUT_STATUS;
  if ((d.outputs & ~kOutputs) != 0)
    return refuse(why, bytes, "outputs is 0x%x; supported: log_probs, argmax, sample, token_log_probs, status (0x%x)",
                  d.outputs, kOutputs);
  return true;
}

// Linear or log-linear, nothing before, nothing after, the first outputs.
inline bool is_plain_combine(const chorus_combine_desc &d, char *why, size_t bytes) {
  return is_plain_mixture(d, why, bytes) && is_plain_after(d, why, bytes) && has_plain_outputs(d, why, bytes);
}

// What a kernel of the plain mixture answers: 0 with the reason in `why`, or 1.
inline int32_t check_combine_plain(const chorus_combine_desc &d, char *why, size_t bytes) {
  return check_combine(d, why, bytes) && is_plain_combine(d, why, bytes) ? 1 : 0;
}

// ---- Inputs of a row ----

// The static part of a plain model.
struct CombineModel {
  chorus_score_kind kind;
  chorus_dtype dtype;
  int64_t n_valid;
  double weight, temperature;
};

// What a kernel keeps of a descriptor: its plain part.
struct CombineSetup {
  chorus_combine_rule rule;
  int32_t n_models;
  int64_t n_tokens;
  bool weight_rows;
  CombineModel models[CHORUS_COMBINE_MAX_MODELS];

  void copy(const chorus_combine_desc &d) {
    rule = d.rule;
    n_models = d.n_models;
    n_tokens = d.n_tokens;
    weight_rows = d.weight_rows != 0;
    for (int32_t i = 0; i < d.n_models; ++i) {
      const chorus_combine_model &m = *d.models[i];
      models[i] = {m.kind, m.dtype, m.n_valid, m.weight, m.temperature};
    }
  }
};

// Weight of a model (or of the list of neighbours, the column after the last) in a row; `otherwise` without a tensor.
inline double weight_of(const CombineSetup &setup, const chorus_combine_args &args, int64_t row, int32_t column,
                        double otherwise) {
  if (args.weights == nullptr) return otherwise;
  const auto *weights = static_cast<const float *>(setup.weight_rows ? row_of(*args.weights, row) : args.weights->data);
  return weights[column * stride_of(*args.weights, setup.weight_rows ? 1 : 0)];
}

// Collects the models of nonzero weight; the others are not touched. False: a weight or temperature makes no sense.
// RowModel has the fields set here.
template <typename RowModel>
bool collect_models(const CombineSetup &setup, const chorus_combine_args &args, int64_t row, RowModel *models, int &count) {
  for (int32_t i = 0; i < setup.n_models; ++i) {
    const CombineModel &from = setup.models[i];
    const double weight = weight_of(setup, args, row, i, from.weight);
    if (weight == 0.0) continue;
    double temperature = args.temperatures == nullptr ? from.temperature : f32_at(*args.temperatures, i);
    if (!std::isfinite(weight) || (weight < 0 && takes_no_negative_weight(setup.rule))) return false;
    if (args.scores[i] == nullptr || !(temperature >= 0)) return false;
    if (temperature > 0 && temperature < kLeastTemperature) temperature = kLeastTemperature;
    RowModel &to = models[count++];
    to = RowModel{};
    to.index = i;
    to.scores = row_of(*args.scores[i], row);
    to.dtype = from.dtype;
    to.kind = from.kind;
    to.n_valid = from.n_valid;
    to.weight = weight;
    to.temperature = temperature;
  }
  return true;
}

// Whether a row may do without models: log-linear of none is uniform, linear of none is nothing.
inline bool may_lack_models(chorus_combine_rule rule) { return !takes_no_negative_weight(rule); }

// The two numbers a row may draw.
struct Draw {
  uint64_t token, model;
};

// Philox at (seed, row id, step): words 0 and 1 choose the token, 2 and 3 the model.
inline Draw draw_of(const chorus_combine_args &args, int64_t row) {
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

// What rounds to -0 in the format leaves as +0: at most half the smallest number.
inline double without_negative_zero(chorus_dtype dtype, double x) {
  const double nothing = dtype == CHORUS_F16 ? 0x1p-25 : dtype == CHORUS_BF16 ? 0x1p-134 : 0x1p-150;
  return x <= 0 && x >= -nothing ? 0.0 : x;
}

// A log-prob: above 0 only by rounding.
inline double as_log_prob(chorus_dtype dtype, double x) { return x > 0 ? 0.0 : without_negative_zero(dtype, x); }

inline void write_choice(const chorus_tensor *token_out, const chorus_tensor *log_prob_out, int64_t row, int64_t token,
                         double log_prob) {
  put_integer(token_out, row, token);
  put_float(log_prob_out, row, log_prob);
}

// Log-probs of the tokens asked for; true where one is outside the vocabulary.
template <typename Value>
bool write_token_log_probs(const chorus_combine_args &args, int64_t row, int64_t n_tokens, const Value &value) {
  if (args.tokens == nullptr || args.token_log_probs == nullptr) return false;
  const chorus_tensor &tokens = *args.tokens;
  const int64_t step = stride_of(tokens, 1), out_step = stride_of(*args.token_log_probs, 1);
  bool bad = false;
  for (int64_t j = 0; j < tokens.shape[1]; ++j) {
    const int64_t token = integer_at(dtype_of(tokens), row_of(tokens, row), j * step);
    const bool outside = token < 0 || token >= n_tokens;
    bad |= outside;
    store_f64(CHORUS_F32, row_of(*args.token_log_probs, row), j * out_step, outside ? kCombineNaN : value(token));
  }
  return bad;
}

// One value per token, written in order: the row may replace the scores it is made from.
template <typename Value>
void write_row(const chorus_tensor *out, int64_t row, int64_t n_tokens, const Value &value) {
  if (out == nullptr) return;
  const chorus_dtype dtype = dtype_of(*out);
  void *to = row_of(*out, row);
  for (int64_t v = 0; v < n_tokens; ++v) store_f64(dtype, to, v, value(dtype, v));
}

// A row without a distribution: every log-prob is `value`, every token -1. True where a token to score is outside.
inline bool write_invalid(const chorus_combine_args &args, int64_t row, int64_t n_tokens, double value) {
  write_choice(args.argmax, args.argmax_log_prob, row, -1, value);
  write_choice(args.sample, args.sample_log_prob, row, -1, value);
  const bool bad_token = write_token_log_probs(args, row, n_tokens, [&](int64_t) { return value; });
  write_row(args.log_probs, row, n_tokens, [&](chorus_dtype, int64_t) { return value; });
  return bad_token;
}

// Whether any output needs log-probs.
inline bool asks_log_probs(const chorus_combine_args &args) {
  return args.log_probs != nullptr || args.argmax_log_prob != nullptr || args.sample_log_prob != nullptr ||
         args.token_log_probs != nullptr;
}

}  // namespace chorus::plugin
#endif  // CHORUS_PLUGIN_COMBINE_HPP_
