// SPDX-License-Identifier: Apache-2.0
// multislerp: the models (or their differences from a base) as directions; the weighted mean direction m, corrected by one step along
// the weighted mean T of their tangents at m: m cos|T| + T sin|T| / |T|, times the weighted mean norm. mergekit's, in coefficients.
#include <cmath>

#include "merge/methods/table.h"
#include "runtime/error.h"

namespace chorus::merge {
namespace {

struct Directions {
  std::vector<double> norms, weights;
  double eps;
};

double product(const Statistic &s, const Directions &d, const std::vector<double> &a, const std::vector<double> &b) {
  double out = 0;
  for (size_t i = 0; i < s.n; ++i) {
    for (size_t j = 0; j < s.n; ++j) out += a[i] * b[j] * s.gram(i, j) / (d.norms[i] + d.eps) / (d.norms[j] + d.eps);
  }
  return out;
}

void set_weights(const Statistic &s, const std::vector<double> &weights, double eps, Coefficients *c) {
  Directions d{{}, weights, eps};
  double norm = 0;
  for (size_t i = 0; i < s.n; ++i) {
    d.norms.push_back(std::sqrt(s.gram(i, i)));
    norm += weights[i] * d.norms[i];
  }
  std::vector<double> mean = weights;
  const double length = std::sqrt(std::max(product(s, d, mean, mean), 0.0));
  if (length < eps) {
    if (s.n > 2) fail(CHORUS_INVALID_ARGUMENT, "the {} models' weighted directions cancel; the mean direction is nothing", s.n);
    c->weights = weights;
    return;
  }
  for (double &m : mean) m /= length;
  std::vector<double> tangent(s.n, 0);
  for (size_t i = 0; i < s.n; ++i) {
    std::vector<double> unit(s.n, 0);
    unit[i] = 1;
    const double along = product(s, d, unit, mean);
    tangent[i] += weights[i];
    for (size_t k = 0; k < s.n; ++k) tangent[k] -= weights[i] * along * mean[k];
  }
  const double step = std::sqrt(std::max(product(s, d, tangent, tangent), 0.0)) + eps;
  for (size_t i = 0; i < s.n; ++i) {
    c->weights[i] = norm * (std::cos(step) * mean[i] + std::sin(step) / step * tangent[i]) / (d.norms[i] + eps);
  }
}

Program program(const Settings &settings) {
  std::vector<double> weights = settings.per_model("weight");
  if (settings.flag("normalize_weights")) {
    check_sum(weights);
    double sum = 0;
    for (const double w : weights) sum += w;
    for (double &w : weights) w /= sum;
  }
  Program out;
  Reduction gram;
  if (settings.has_base()) {
    gram.operand = out.stages.operand = CHORUS_OPERAND_DELTA;
    out.stages.add_base = true;
  } else {
    out.stages.combine = CHORUS_MERGE_COEFFICIENTS;
  }
  out.coefficients.weights = weights;
  if (settings.n_inputs() == 1) {
    out.coefficients.weights = {1};
    return out;
  }
  const double eps = settings.number("eps");
  out.passes.push_back({gram, [=](const Statistic &s, Coefficients *c) { set_weights(s, weights, eps, c); }});
  return out;
}

}  // namespace

Method multislerp_method() {
  return {"multislerp",
          "weighted mean of the models' directions on the sphere, or of their differences from a base",
          BaseUse::kOptional,
          1,
          CHORUS_MERGE_MAX_INPUTS,
          {weight_parameter(),
           {"normalize_weights", ParameterType::kBoolean, false, false, 1, 0, 1, "divide the weights by their sum"},
           {"eps", ParameterType::kNumber, false, false, 1e-8, 0, kInfinity, "added to norms"}},
          program};
}

}  // namespace chorus::merge
