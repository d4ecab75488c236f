// SPDX-License-Identifier: Apache-2.0
// The linear and the log-linear rule. Log-probs are f64; choices (argmax, sample) are IEEE f32 and integers alone,
// so that every backend chooses the same token (docs/numerics.md, "Combining").
#include "reference/combine_mixture.h"

#include <algorithm>
#include <cmath>

namespace chorus::reference {
namespace {

bool is_linear(const Mixture &mix) { return mix.rule == CHORUS_COMBINE_LINEAR; }

// Term of a token that a model of positive weight lacks: the token is out. Of negative weight: neutral, which is 0.
double log_linear_term(const ModelRow &m, int64_t v) {
  const double l = log_prob(m, v);
  if (l == -kInfinity64) return m.weight > 0 ? -kInfinity64 : 0.0;
  if (m.weight > 0 && m.shape != RowShape::kRegular) return 0.0;  // the same for all its tokens, and may be huge
  return m.weight * l;
}

double log_linear_sum(const Mixture &mix, int64_t v) {
  double t = 0.0;
  for (int i = 0; i < mix.count; ++i) t += log_linear_term(mix.models[i], v);
  return t;
}

// Log-linear: whether some token is in the support of every model of positive weight. Usually the first one is.
bool has_support(const Mixture &mix) {
  const auto lacks = [](const ModelRow &m, int64_t v) { return m.weight > 0 && !is_present(m, v); };
  for (int64_t v = 0; v < mix.n_tokens; ++v) {
    if (std::none_of(mix.models, mix.models + mix.count, [&](const ModelRow &m) { return lacks(m, v); })) return true;
  }
  return false;
}

// ---- Keys ----

// The coefficient of 1 / temperature, for a model on its own.
void set_own_coefficient(ModelRow &m) {
  m.coefficient = clamp(1.0f / static_cast<float>(m.temperature), kMostCoefficient);
}

// Readies log_linear_key(). Terms are unnormalised; only a model of negative weight needs its normaliser, because its
// neutral 0 is meant on normalised log-probs.
void set_log_linear_terms(ModelRow &m, int bits) {
  const float weight = static_cast<float>(m.weight);
  m.present = 0.0f;
  m.missing = 0.0f;
  if (m.shape == RowShape::kRegular) {
    if (m.weight < 0) {
      set_own_coefficient(m);
      const float total = static_cast<float>(model_total(m, bits)) * chorus_exact_pow2(-bits);
      m.missing = clamp(weight * (regular_key(m, m.top) + chorus_exact_log(total)), kMostTerm);
    }
    m.coefficient = clamp(weight / static_cast<float>(m.temperature), kMostCoefficient);
  } else if (m.shape == RowShape::kInfinite && m.weight < 0) {
    m.present = clamp(weight * -chorus_exact_log(static_cast<float>(m.infinite_count)), kMostTerm);
  }
}

float log_linear_key(const Mixture &mix, int64_t v) {
  float z = 0.0f;
  for (int i = 0; i < mix.count; ++i) {
    const ModelRow &m = mix.models[i];
    if (!is_present(m, v)) {
      if (m.weight > 0) return -kInfinity32;
      z = z + m.missing;
    } else {
      z = z + (m.shape == RowShape::kRegular ? regular_key(m, v) : m.present);
    }
  }
  return z;
}

double highest_weight(const Mixture &mix) {
  double highest = 0.0;
  for (int i = 0; i < mix.count; ++i) highest = std::max(highest, mix.models[i].weight);
  return highest;
}

void set_linear_factors(Mixture &mix, int bits) {
  const double highest = highest_weight(mix);
  for (int i = 0; i < mix.count; ++i) {
    ModelRow &m = mix.models[i];
    set_own_coefficient(m);
    const double total = static_cast<double>(model_total(m, bits)) * chorus_exact_pow2(-bits);
    mix.factors[i] = static_cast<float>(m.weight / highest / total);
  }
}

// Sum of (weight / total) * exp(key - max), in f32.
float linear_key(const Mixture &mix, int64_t v) {
  float p = 0.0f;
  for (int i = 0; i < mix.count; ++i) {
    const ModelRow &m = mix.models[i];
    if (!is_present(m, v)) continue;
    const float q = m.shape == RowShape::kRegular ? chorus_exact_exp(regular_key(m, v) - regular_key(m, m.top)) : 1.0f;
    p = p + mix.factors[i] * q;
  }
  return p;
}

int64_t best_key(const Mixture &mix, float best) {
  int64_t token = -1;
  for (int64_t v = 0; v < mix.n_tokens; ++v) {
    const float z = key(mix, v);
    if (z > best) {
      best = z;
      token = v;
    }
  }
  return token;
}

int64_t log_linear_argmax(Mixture &mix) {
  prepare_keys(mix);
  return best_key(mix, -kInfinity32);
}

// The smallest token whose cumulative weight exceeds `random` mapped onto [0, total).
template <typename Weight>
int64_t pick(int64_t count, uint64_t random, const Weight &weight) {
  uint64_t total = 0;
  for (int64_t v = 0; v < count; ++v) total += weight(v);
  const uint64_t r = chorus_multiply_high(random, total);
  uint64_t cumulative = 0;
  for (int64_t v = 0; v < count; ++v) {
    cumulative += weight(v);
    if (cumulative > r) return v;
  }
  return -1;
}

int64_t log_linear_sample(Mixture &mix, const Draw &d) {
  const int64_t top = log_linear_argmax(mix);
  if (top < 0) return -1;
  const float max = log_linear_key(mix, top);
  const int bits = token_bits(mix.n_tokens);
  return pick(mix.n_tokens, d.token, [&](int64_t v) { return integer_weight(log_linear_key(mix, v), max, bits); });
}

// One model alone: its own highest score.
int64_t linear_argmax(Mixture &mix) {
  if (mix.count == 1) return mix.models[0].top;
  prepare_keys(mix);
  return best_key(mix, 0.0f);
}

// Draws the model by its weight, then the token within that model.
int64_t linear_sample(Mixture &mix, const Draw &d) {
  if (mix.count == 0) return -1;
  const double highest = highest_weight(mix);
  const auto i = pick(mix.count, d.model, [&](int64_t i) {
    return static_cast<uint64_t>(mix.models[i].weight / highest * 0x1p56);
  });
  ModelRow &m = mix.models[i];
  set_own_coefficient(m);
  const int bits = token_bits(mix.n_tokens);
  return pick(m.n_valid, d.token, [&](int64_t v) { return model_weight(m, v, bits); });
}

}  // namespace

void prepare_keys(Mixture &mix) {
  const int bits = token_bits(mix.n_tokens);
  if (is_linear(mix)) return set_linear_factors(mix, bits);
  for (int i = 0; i < mix.count; ++i) set_log_linear_terms(mix.models[i], bits);
}

float key(const Mixture &mix, int64_t v) { return is_linear(mix) ? linear_key(mix, v) : log_linear_key(mix, v); }

bool scan(Mixture &mix) {
  bool lost_support = false;
  int kept = 0;
  for (int i = 0; i < mix.count; ++i) {
    ModelRow &m = mix.models[i];
    scan(m);
    if (m.has_nan) mix.status |= CHORUS_ROW_NAN;
    if (m.infinite_count > 0) mix.status |= CHORUS_ROW_INFINITE;
    if (m.shape == RowShape::kEmpty) {
      if (m.weight > 0) mix.status |= CHORUS_ROW_MODEL_EMPTY;
      lost_support |= m.weight > 0 && !is_linear(mix);
      continue;  // of negative weight: neutral everywhere
    }
    mix.models[kept++] = m;
  }
  mix.count = kept;
  if (mix.status & CHORUS_ROW_NAN) return false;
  lost_support |= is_linear(mix) ? kept == 0 : !has_support(mix);
  if (lost_support) mix.status |= CHORUS_ROW_EMPTY_SUPPORT;
  return !lost_support;
}

void prepare_log_probs(Mixture &mix) {
  double weights = 0.0;
  for (int i = 0; i < mix.count; ++i) {
    prepare_log_probs(mix.models[i]);
    weights += mix.models[i].weight;
  }
  if (is_linear(mix)) {
    for (int i = 0; i < mix.count; ++i) mix.log_weights[i] = std::log(mix.models[i].weight / weights);
    return;
  }
  mix.top = -kInfinity64;
  for (int64_t v = 0; v < mix.n_tokens; ++v) mix.top = std::max(mix.top, log_linear_sum(mix, v));
  mix.log_sum = std::log(
      sum_in_order<double>(mix.n_tokens, [&](int64_t v) { return std::exp(log_linear_sum(mix, v) - mix.top); }));
}

double log_prob(const Mixture &mix, int64_t v) {
  if (!is_linear(mix)) {
    const double t = log_linear_sum(mix, v);
    return t == -kInfinity64 ? t : t - mix.top - mix.log_sum;
  }
  double terms[CHORUS_COMBINE_MAX_MODELS];
  double top = -kInfinity64;
  for (int i = 0; i < mix.count; ++i) {
    terms[i] = mix.log_weights[i] + log_prob(mix.models[i], v);
    top = std::max(top, terms[i]);
  }
  if (top == -kInfinity64) return top;
  double sum = 0.0;
  for (int i = 0; i < mix.count; ++i) sum += std::exp(terms[i] - top);
  return top + std::log(sum);
}

int64_t argmax(Mixture &mix) { return is_linear(mix) ? linear_argmax(mix) : log_linear_argmax(mix); }

int64_t sample(Mixture &mix, const Draw &d) { return is_linear(mix) ? linear_sample(mix, d) : log_linear_sample(mix, d); }

}  // namespace chorus::reference
