// SPDX-License-Identifier: Apache-2.0
// Posterior and confidence weights, in f64 on logarithms.
#include "combine/weights.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace chorus::combine {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();

// log sum exp(a[i] + b[i]) over the entries that are numbers; -inf where none is.
template <typename Term>
double log_sum(int32_t n, const Term &term) {
  double top = kNothing, sum = 0;
  for (int32_t i = 0; i < n; ++i) top = std::max(top, term(i));
  if (top == kNothing) return top;
  for (int32_t i = 0; i < n; ++i) sum += std::exp(term(i) - top);
  return top + std::log(sum);
}

void softmax(const std::vector<double> &logs, float *weights) {
  const auto n = static_cast<int32_t>(logs.size());
  const double all = log_sum(n, [&](int32_t i) { return logs[i]; });
  for (int32_t i = 0; i < n; ++i) weights[i] = static_cast<float>(std::exp(logs[i] - all));
}

double log_prior(const double *prior, int32_t i) { return prior != nullptr ? std::log(prior[i]) : 0.0; }

double log_confidence(chorus_confidence kind, double strength, int32_t n_models, const float *d, int32_t i) {
  const double entropy = d[3 + i], most = d[3 + n_models + i];
  if (!(most > 0)) return kNothing;  // not read
  return kind == CHORUS_CONFIDENCE_ENTROPY ? -strength * entropy : strength * std::log(most);
}

}  // namespace

void add_evidence(int32_t n_models, const float *log_probs, double keep, double *state) {
  const auto is_read = [&](int32_t i) { return !std::isnan(log_probs[i]); };
  const double all = log_sum(n_models, [&](int32_t i) { return is_read(i) ? state[i] : kNothing; });
  const double mixture = log_sum(n_models, [&](int32_t i) { return is_read(i) ? state[i] + log_probs[i] : kNothing; }) - all;
  if (!std::isfinite(mixture)) return;  // every model excludes the token, or none was read
  double top = kNothing;
  for (int32_t i = 0; i < n_models; ++i) {
    state[i] = keep * state[i] + (is_read(i) ? static_cast<double>(log_probs[i]) : mixture);
    top = std::max(top, state[i]);
  }
  for (int32_t i = 0; i < n_models; ++i) state[i] -= top;
}

void weights_of_evidence(int32_t n_models, const double *state, float *weights) {
  softmax({state, state + n_models}, weights);
}

void weights_of_confidence(int32_t n_models, chorus_confidence kind, double strength, const float *diagnostics,
                           const double *prior, float *weights) {
  std::vector<double> logs(n_models), priors(n_models);
  for (int32_t i = 0; i < n_models; ++i) {
    priors[i] = log_prior(prior, i);
    const double confidence = log_confidence(kind, strength, n_models, diagnostics, i);
    logs[i] = std::isfinite(confidence) ? priors[i] + confidence : kNothing;
  }
  const bool knows = std::any_of(logs.begin(), logs.end(), [](double x) { return x > kNothing; });
  if (!knows) return softmax(priors, weights);
  if (kind != CHORUS_CONFIDENCE_BEST) return softmax(logs, weights);
  const float *most = diagnostics + 3 + n_models;
  int32_t best = -1;
  for (int32_t i = 0; i < n_models; ++i) {
    if (logs[i] > kNothing && (best < 0 || most[i] > most[best])) best = i;
  }
  for (int32_t i = 0; i < n_models; ++i) weights[i] = i == best ? 1.0f : 0.0f;
}

}  // namespace chorus::combine
