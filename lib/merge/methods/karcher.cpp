// SPDX-License-Identifier: Apache-2.0
// karcher: the Riemannian mean of the models' directions on the sphere, by iteration, times the mean of their norms; models weigh
// the same. Everything happens in coefficients over the Gram. Karcher 1977; mergekit's iteration.
#include <algorithm>
#include <cmath>

#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

// Vectors in the span of unit vectors u_i = x_i / |x_i|, as coefficients; products through the Gram of the u_i.
class Span {
 public:
  Span(const Statistic &s, const std::vector<size_t> &members) : members_(members), gram_(s) {}
  size_t size() const { return members_.size(); }
  double unit(size_t i, size_t j) const {
    return gram_.gram(members_[i], members_[j]) / std::sqrt(gram_.gram(members_[i], members_[i])) /
           std::sqrt(gram_.gram(members_[j], members_[j]));
  }
  double with_unit(const std::vector<double> &v, size_t j) const {
    double out = 0;
    for (size_t i = 0; i < size(); ++i) out += v[i] * unit(i, j);
    return out;
  }
  double norm(const std::vector<double> &v) const {
    double square = 0;
    for (size_t j = 0; j < size(); ++j) square += v[j] * with_unit(v, j);
    return std::sqrt(std::max(square, 0.0));
  }

 private:
  const std::vector<size_t> &members_;
  const Statistic &gram_;
};

void scale(std::vector<double> *v, double factor) {
  for (double &x : *v) x *= factor;
}

// The mean direction, as coefficients of the units.
std::vector<double> mean_direction(const Span &span, int64_t max_iterations, double tolerance) {
  const size_t n = span.size();
  std::vector<double> mean(n, 1.0 / static_cast<double>(n));
  const double length = span.norm(mean);
  if (length < tolerance) {
    mean.assign(n, 0);
    mean[0] = 1;
  } else {
    scale(&mean, 1 / length);
  }
  for (int64_t step = 0; step < max_iterations; ++step) {
    // The mean of the logarithms at `mean`: u_i - cos(a_i) mean, times a_i / sin(a_i).
    std::vector<double> tangent(n, 0);
    for (size_t i = 0; i < n; ++i) {
      const double cosine = std::clamp(span.with_unit(mean, i), -1.0, 1.0), angle = std::acos(cosine), sine = std::sin(angle);
      if (angle < tolerance || sine == 0) continue;
      const double factor = angle / sine / static_cast<double>(n);
      tangent[i] += factor;
      for (size_t k = 0; k < n; ++k) tangent[k] -= factor * cosine * mean[k];
    }
    const double size = span.norm(tangent);
    if (size < tolerance) break;
    for (size_t k = 0; k < n; ++k) mean[k] = std::cos(size) * mean[k] + std::sin(size) / size * tangent[k];
    scale(&mean, 1 / span.norm(mean));
  }
  return mean;
}

void set_weights(const Statistic &s, int64_t max_iterations, double tolerance, Coefficients *c) {
  std::vector<size_t> members;
  double norms = 0;
  for (size_t i = 0; i < s.n; ++i) {
    const double norm = std::sqrt(s.gram(i, i));
    norms += norm / static_cast<double>(s.n);
    if (norm > tolerance) members.push_back(i);
  }
  c->weights.assign(s.n, 0);
  if (members.empty()) return;
  const std::vector<double> mean = mean_direction(Span(s, members), max_iterations, tolerance);
  for (size_t i = 0; i < members.size(); ++i) c->weights[members[i]] = norms * mean[i] / std::sqrt(s.gram(members[i], members[i]));
}

Program program(const Settings &settings) {
  const auto iterations = static_cast<int64_t>(settings.number("max_iter"));
  const double tolerance = settings.number("tol");
  Program out;
  out.stages.combine = CHORUS_MERGE_COEFFICIENTS;
  out.coefficients.weights.assign(settings.n_inputs(), 1);
  if (settings.n_inputs() == 1) return out;
  out.passes.push_back({Reduction{}, [=](const Statistic &s, Coefficients *c) { set_weights(s, iterations, tolerance, c); }});
  return out;
}

}  // namespace

Method karcher_method() {
  return {"karcher",
          "mean of the models on the sphere",
          BaseUse::kInput,
          1,
          CHORUS_MERGE_MAX_INPUTS,
          {{"max_iter", ParameterType::kInteger, false, false, 10, 0, 100000, "most iterations"},
           {"tol", ParameterType::kNumber, false, false, 1e-5, 0, kInfinity, "length of a step at which the iteration ends"}},
          program};
}

}  // namespace chorus::merge
