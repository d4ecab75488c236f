// SPDX-License-Identifier: Apache-2.0
// multislerp: the models (or their differences from a base) as directions; the weighted mean direction m, corrected by one step along
// the weighted mean T of their tangents at m: m cos|T| + T sin|T| / |T|, times the weighted mean norm. mergekit's, in coefficients.
#include <algorithm>
#include <cmath>

#include "merge/methods/table.h"
#include "runtime/error.h"

namespace chorus::merge {
namespace {

struct Directions {
  std::vector<double> norms;
  double eps;
};

// Of the rounding chain: what is known of the whole tensor before its elements are merged.
struct Sphere {
  std::vector<double> weights, lengths, along;  // of each model: weight, norm + eps, product of its direction with the mean's
  double mean_norm = 0, cosine = 1, tangent = 1, norm = 1;  // mean_norm 0: the directions cancel, a weighted sum instead

  std::vector<double> numbers() const {
    std::vector<double> out = {mean_norm, cosine, tangent, norm};
    for (const auto *part : {&weights, &lengths, &along}) out.insert(out.end(), part->begin(), part->end());
    return out;
  }
  explicit Sphere(std::vector<double> w) : weights(std::move(w)), lengths(weights.size()), along(weights.size()) {}
  explicit Sphere(const std::vector<double> &numbers, size_t n) : mean_norm(numbers[0]), cosine(numbers[1]), tangent(numbers[2]), norm(numbers[3]) {
    const auto part = [&](size_t i) { return numbers.begin() + static_cast<ptrdiff_t>(4 + i * n); };
    weights.assign(part(0), part(1));
    lengths.assign(part(1), part(2));
    along.assign(part(2), part(3));
  }
};

double product(const Statistic &s, const Directions &d, const std::vector<double> &a, const std::vector<double> &b) {
  double out = 0;
  for (size_t i = 0; i < s.n; ++i) {
    for (size_t j = 0; j < s.n; ++j) out += a[i] * b[j] * s.gram(i, j) / (d.norms[i] + d.eps) / (d.norms[j] + d.eps);
  }
  return out;
}

[[noreturn]] void fail_cancelled(size_t n) {
  fail(CHORUS_INVALID_ARGUMENT, "the {} models' weighted directions cancel; the mean direction is nothing", n);
}

double length_of(const Statistic &s, const Directions &d, const std::vector<double> &v) { return std::sqrt(std::max(product(s, d, v, v), 0.0)); }

void set_weights(const Statistic &s, const std::vector<double> &weights, double eps, Coefficients *c) {
  Directions d{{}, eps};
  double norm = 0;
  for (size_t i = 0; i < s.n; ++i) {
    d.norms.push_back(std::sqrt(s.gram(i, i)));
    norm += weights[i] * d.norms[i];
  }
  std::vector<double> mean = weights;
  const double length = length_of(s, d, mean);
  if (length < eps) {
    if (s.n > 2) fail_cancelled(s.n);
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
  const double step = length_of(s, d, tangent) + eps;
  for (size_t i = 0; i < s.n; ++i) {
    c->weights[i] = norm * (std::cos(step) * mean[i] + std::sin(step) / step * tangent[i]) / (d.norms[i] + eps);
  }
}

// The same with every scalar rounded. weights are rounded already.
Sphere sphere_of(const Statistic &s, const std::vector<double> &weights, double eps, const Rounding &r) {
  Sphere out(weights);
  Directions d{{}, 0};
  double norm = 0;
  for (size_t i = 0; i < s.n; ++i) {
    const double length = r(std::sqrt(s.gram(i, i)));
    norm = r.scalar(norm + r(length * weights[i]));
    out.lengths[i] = r(length + eps) == 0 ? kInfinity : r(length + eps);  // the direction of nothing is 0
  }
  d.norms = out.lengths;
  std::vector<double> mean = weights;
  const double mean_norm = r(length_of(s, d, mean));
  if (mean_norm < eps) {
    if (s.n > 2) fail_cancelled(s.n);
    return out;
  }
  for (double &m : mean) m /= mean_norm;
  std::vector<double> tangent(s.n, 0);
  for (size_t i = 0; i < s.n; ++i) {
    std::vector<double> unit(s.n, 0);
    unit[i] = 1;
    out.along[i] = r(product(s, d, unit, mean));
    tangent[i] += weights[i];
    for (size_t k = 0; k < s.n; ++k) tangent[k] -= weights[i] * out.along[i] * mean[k];
  }
  const double step = r(r(length_of(s, d, tangent)) + eps);
  out.mean_norm = mean_norm;
  out.cosine = r(std::cos(step));
  out.tangent = r(r(std::sin(step)) / step);
  out.norm = r(norm);
  return out;
}

// mergekit's chain.
void step_on_the_sphere(const ElementBlock &block, const Rounding &r) {
  const size_t n = block.inputs.size();
  const Sphere s(block.coefficients.scalars, n);
  const double *base = block.base;
  std::vector<double> unit(n);
  for (size_t e = 0; e < block.count; ++e) {
    double mean = 0, tangent = 0;
    const auto delta = [&](size_t i) { return block.inputs[i] == nullptr ? 0.0 : base != nullptr ? r(block.inputs[i][e] - base[e]) : block.inputs[i][e]; };
    for (size_t i = 0; i < n; ++i) {
      unit[i] = s.mean_norm != 0 ? r(delta(i) / s.lengths[i]) : delta(i);
      mean = r.scalar(mean + r(unit[i] * s.weights[i]));
    }
    double y = r(mean);
    if (s.mean_norm != 0) {
      mean = r(y / s.mean_norm);
      for (size_t i = 0; i < n; ++i) tangent = r.scalar(tangent + r(r(unit[i] - r(s.along[i] * mean)) * s.weights[i]));
      y = r(r(r(mean * s.cosine) + r(r(tangent) * s.tangent)) * s.norm);
    }
    block.out[e] = base != nullptr ? r(y + base[e]) : y;
  }
}

std::vector<double> weights_of(const Settings &settings) {
  const Rounding r = settings.rounding();
  std::vector<double> weights = settings.per_model("weight");
  for (double &w : weights) w = r(w);
  if (!settings.flag("normalize_weights")) return weights;
  check_sum(weights);
  double sum = 0;
  for (const double w : weights) sum = r.scalar(sum + w);
  for (double &w : weights) w = r(w / r(sum));
  return weights;
}

Program program(const Settings &settings) {
  const std::vector<double> weights = weights_of(settings);
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
  if (settings.rounding().is_active()) {
    const Rounding r = settings.rounding();
    out.passes.push_back({gram, [=](const Statistic &s, Coefficients *c) { c->scalars = sphere_of(s, weights, eps, r).numbers(); }});
    out.element = [r](const ElementBlock &block) { step_on_the_sphere(block, r); };
    return out;
  }
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
