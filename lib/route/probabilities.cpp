// SPDX-License-Identifier: Apache-2.0
// Scores and their derivatives, by the C library's exp and log in double precision.
#include "route/probabilities.h"

#include <algorithm>
#include <cmath>

#include "chorus/plugin.hpp"

namespace chorus::route {
namespace {

constexpr double kInfinity = HUGE_VAL;

double sigmoid(double x) {
  const double e = std::exp(-std::fabs(x));
  return x < 0 ? e / (1 + e) : 1 / (1 + e);
}

double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }

double highest(const std::vector<double> &x) {
  double top = -kInfinity;
  for (const double v : x) top = v > top ? v : top;
  return top;
}

void softmax(const std::vector<double> &x, std::vector<double> *out) {
  const double top = highest(x);
  double sum = 0;
  for (size_t e = 0; e < x.size(); ++e) {
    double &y = (*out)[e];
    y = std::isinf(top) ? static_cast<double>(x[e] == top) : std::isnan(x[e]) ? 0.0 : std::exp(x[e] - top);
    sum += y;
  }
  for (double &y : *out) y = sum > 0 ? y / sum : 0.0;
}

double derivative(chorus_route_score kind, double x, double score) {
  switch (kind) {
    case CHORUS_ROUTE_SIGMOID: return score * sigmoid(-x);
    case CHORUS_ROUTE_SQRT_SOFTPLUS: return score > 0 ? sigmoid(x) / (2 * score) : 0.0;
    case CHORUS_ROUTE_RELU: return x > 0 ? 1.0 : 0.0;
    default: return 1.0;
  }
}

}  // namespace

void read_row(const chorus_tensor &t, int64_t row, std::vector<double> *out) {
  const void *data = plugin::row_of(t, row);
  for (size_t e = 0; e < out->size(); ++e) (*out)[e] = plugin::load_f64(plugin::dtype_of(t), data, static_cast<int64_t>(e));
}

void write_row(const chorus_tensor &t, int64_t row, const std::vector<double> &values) {
  void *data = plugin::row_of(t, row);
  for (size_t e = 0; e < values.size(); ++e) plugin::store_f64(plugin::dtype_of(t), data, static_cast<int64_t>(e), values[e]);
}

void score(chorus_route_score kind, const std::vector<double> &x, std::vector<double> *out) {
  if (kind == CHORUS_ROUTE_SOFTMAX) return softmax(x, out);
  for (size_t e = 0; e < x.size(); ++e) {
    switch (kind) {
      case CHORUS_ROUTE_SIGMOID: (*out)[e] = sigmoid(x[e]); break;
      case CHORUS_ROUTE_SQRT_SOFTPLUS: (*out)[e] = std::sqrt(softplus(x[e])); break;
      case CHORUS_ROUTE_RELU: (*out)[e] = x[e] < 0 ? 0.0 : x[e]; break;
      default: (*out)[e] = x[e];
    }
  }
}

void score_backward(chorus_route_score kind, const std::vector<double> &x, const std::vector<double> &scores,
                    std::vector<double> *gradient) {
  if (kind == CHORUS_ROUTE_SOFTMAX) {
    double mean = 0;
    for (size_t e = 0; e < x.size(); ++e) mean += scores[e] * (*gradient)[e];
    const bool shared = std::isinf(highest(x));
    for (size_t e = 0; e < x.size(); ++e) (*gradient)[e] = shared ? 0.0 : scores[e] * ((*gradient)[e] - mean);
    return;
  }
  for (size_t e = 0; e < x.size(); ++e) {
    (*gradient)[e] = std::isnan(x[e]) || (*gradient)[e] == 0 ? 0.0 : (*gradient)[e] * derivative(kind, x[e], scores[e]);
  }
}

}  // namespace chorus::route
