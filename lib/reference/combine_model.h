// SPDX-License-Identifier: Apache-2.0
// One row of one model inside combine.rows: its shape (regular, one-hot, infinite, empty), log-probs in f64 and
// the integer token weights that decide samples. docs/numerics.md, "Combining", fixes every operation.
#pragma once
#include <cstdint>
#include <limits>

#include "chorus/plugin_combine.hpp"
#include "reference/backend.h"

namespace chorus::reference {

inline constexpr double kInfinity64 = std::numeric_limits<double>::infinity();
inline constexpr float kInfinity32 = std::numeric_limits<float>::infinity();

enum class RowShape {
  kRegular,   // a softmax over finite scores
  kOneHot,    // temperature 0: all mass on `top`
  kInfinite,  // the +inf tokens share the mass equally
  kEmpty,     // no token has positive probability
};

struct ModelRow {
  // Given.
  int32_t index;
  const void *scores;
  chorus_dtype dtype;
  chorus_score_kind kind;
  int64_t n_valid;
  double weight;
  double temperature;  // 0, or at least kLeastTemperature
  // Found by scan().
  RowShape shape;
  bool has_nan;
  int64_t top;             // lowest id of the highest score
  int64_t infinite_count;  // of +inf scores
  // Set by the steps that need them.
  double top_score, log_sum;  // f64: score of `top`, log sum exp((s - top_score) / temperature)
  float coefficient;          // of the key: weight / temperature (log-linear) or 1 / temperature (linear)
  float present, missing;     // key terms of tokens in and out of the support where they are constants
};

inline float raw_score(const ModelRow &m, int64_t v) { return load_f32(m.dtype, m.scores, v); }

// Score on the logarithmic scale, for decisions: probabilities through exact_log. -inf is "not in the support".
inline float score32(const ModelRow &m, int64_t v) {
  const float x = raw_score(m, v);
  return m.kind == CHORUS_SCORES_PROBS ? chorus_exact_log(x) : x;
}

// Whether the token has positive probability.
inline bool is_present(const ModelRow &m, int64_t v) {
  if (v >= m.n_valid) return false;
  switch (m.shape) {
    case RowShape::kOneHot: return v == m.top;
    case RowShape::kInfinite: return raw_score(m, v) == kInfinity32;
    case RowShape::kEmpty: return false;
    default: return raw_score(m, v) > (m.kind == CHORUS_SCORES_PROBS ? 0.0f : -kInfinity32);
  }
}

// Reads the row once and sets what "Found by scan()" lists. Cost O(n_valid).
void scan(ModelRow &m);

// Sets top_score and log_sum. Cost: n_valid exponentials in f64.
void prepare_log_probs(ModelRow &m);

// Normalised log-prob of token v; -inf outside the support. After prepare_log_probs().
double log_prob(const ModelRow &m, int64_t v);

// The key of a regular row: coefficient * score, an IEEE f32 product.
inline float regular_key(const ModelRow &m, int64_t v) { return clamp(m.coefficient * score32(m, v), kMostTerm); }

// floor(2^bits * exact_exp(z - max)); z = -inf gives 0.
inline uint64_t integer_weight(float z, float max, int bits) {
  if (z == -kInfinity32) return 0;
  return static_cast<uint64_t>(chorus_exact_exp(z - max) * chorus_exact_pow2(bits));
}

// Integer weight of token v within model m alone, at key coefficient 1 / temperature.
uint64_t model_weight(const ModelRow &m, int64_t v, int bits);

// Sum of model_weight over the row.
uint64_t model_total(const ModelRow &m, int bits);

}  // namespace chorus::reference
