// SPDX-License-Identifier: Apache-2.0
// One row of a diagnosis: distributions in f64, divergences in non-negative terms.
#include <algorithm>
#include <cmath>
#include <limits>

#include "chorus/plugin.hpp"
#include "combine/diagnosis.h"
#include "combine/divergence.h"
#include "combine/score_row.h"

namespace chorus::combine {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <typename Term>
double sum(int64_t v, const Term &term) {
  return plugin::sum_in_order<double>(v, [&](int64_t u) { return term(static_cast<size_t>(u)); });
}

struct Distribution {
  const double *p, *log_p;
};

double kl(const Distribution &a, const Distribution &b, int64_t v) {
  return sum(v, [&](size_t u) { return excess(a.p[u], b.p[u], a.log_p[u] - b.log_p[u]); });
}

// Half of what p adds to the Jensen-Shannon divergence of p and q, then half of what q adds.
double js(const Distribution &a, const Distribution &b, int64_t v) {
  return 0.5 * sum(v, [&](size_t u) {
           const double m = 0.5 * (a.p[u] + b.p[u]), log_m = std::log(m);
           return m == 0 ? 0.0 : excess(a.p[u], m, a.log_p[u] - log_m) + excess(b.p[u], m, b.log_p[u] - log_m);
         });
}

double entropy(const Distribution &a, int64_t v) {
  return -sum(v, [&](size_t u) { return p_log_p(a.p[u], a.log_p[u]); });
}

size_t argmax(const double *log_p, int64_t v) { return static_cast<size_t>(std::max_element(log_p, log_p + v) - log_p); }

// Share of the models whose best token is not the most frequent one.
double variation_ratio(const std::vector<int64_t> &best, size_t n) {
  std::ptrdiff_t most = 0;
  for (size_t i = 0; i < n; ++i) most = std::max(most, std::count(best.begin(), best.begin() + static_cast<int64_t>(n), best[i]));
  return 1 - static_cast<double>(most) / static_cast<double>(n);
}

// log sum_i w_i p_i of one token, whatever underflows.
double log_mixture(const std::vector<Distribution> &models, const std::vector<double> &weights, size_t token) {
  double top = -kInfinity, total = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] > 0) top = std::max(top, models[i].log_p[token]);
  }
  if (top == -kInfinity) return top;
  for (size_t i = 0; i < weights.size(); ++i) total += weights[i] * std::exp(models[i].log_p[token] - top);
  return top + std::log(total);
}

}  // namespace

RowDiagnosis Diagnosis::diagnose(const chorus_diagnosis_batch &batch, int64_t row, int64_t v,
                                 std::vector<double> *scratch) const {
  RowDiagnosis out;
  const auto width = static_cast<size_t>(v);
  // Of each model, of the linear mixture, and of a combination given apart: probabilities and their logarithms.
  scratch->resize((n_ + 2) * 2 * width);
  std::vector<Distribution> models;
  for (size_t i = 0; i <= n_ + 1; ++i) models.push_back({scratch->data() + 2 * i * width, scratch->data() + (2 * i + 1) * width});
  const auto read = [&](size_t i, const chorus_tensor &scores) {
    double *p = const_cast<double *>(models[i].p), *log_p = const_cast<double *>(models[i].log_p);
    const RowState state = normalise_row(plugin::row_of(scores, row), plugin::dtype_of(scores), v, log_p, v);
    for (size_t u = 0; u < width; ++u) p[u] = std::exp(log_p[u]);
    return state != RowState::kNaN && state != RowState::kEmpty;
  };
  for (size_t i = 0; i < n_; ++i) {
    if (!read(i, *batch.scores[i])) return out;
  }
  if (batch.combined != nullptr && !read(n_ + 1, *batch.combined)) return out;
  double *mix = const_cast<double *>(models[n_].p), *log_mix = const_cast<double *>(models[n_].log_p);
  for (size_t u = 0; u < width; ++u) {
    mix[u] = 0;
    for (size_t i = 0; i < n_; ++i) mix[u] += weights_[i] * models[i].p[u];
    log_mix[u] = std::log(mix[u]);
  }
  const Distribution &mixture = models[n_], &combined = batch.combined != nullptr ? models[n_ + 1] : mixture;

  out.valid = true;
  out.entropy = entropy(mixture, v);
  for (size_t i = 0; i < n_; ++i) {
    out.entropies.push_back(entropy(models[i], v));
    out.expected_entropy += weights_[i] * out.entropies[i];
    if (weights_[i] > 0) out.information += weights_[i] * kl(models[i], mixture, v);
    out.best.push_back(static_cast<int64_t>(argmax(models[i].log_p, v)));
    out.all_agree &= out.best[i] == out.best[0];
  }
  out.best.push_back(static_cast<int64_t>(argmax(combined.log_p, v)));
  out.variation_ratio = variation_ratio(out.best, n_);
  for (size_t i = 0; i < n_; ++i) {
    for (size_t j = 0; j < n_; ++j) {
      out.kl.push_back(i == j ? 0.0 : kl(models[i], models[j], v));
      out.js.push_back(i == j ? 0.0 : j < i ? out.js[j * n_ + i] : js(models[i], models[j], v));
      out.total_variation.push_back(
          j <= i ? (i == j ? 0.0 : out.total_variation[j * n_ + i])
                 : 0.5 * sum(v, [&](size_t u) { return std::abs(models[i].p[u] - models[j].p[u]); }));
    }
  }
  if (batch.tokens == nullptr) return out;
  out.has_gold = true;
  const auto gold = static_cast<size_t>(plugin::integer_at(*batch.tokens, row));
  for (size_t i = 0; i <= n_; ++i) {
    const Distribution &model = i < n_ ? models[i] : combined;
    const bool from_mixture = i == n_ && batch.combined == nullptr;
    out.nll.push_back(-(from_mixture ? log_mixture(models, weights_, gold) : model.log_p[gold]));
    out.brier.push_back(sum(v, [&](size_t u) { return model.p[u] * model.p[u]; }) - 2 * model.p[gold] + 1);
    out.confidence.push_back(std::min(1.0, model.p[static_cast<size_t>(out.best[i])]));
  }
  return out;
}

}  // namespace chorus::combine
