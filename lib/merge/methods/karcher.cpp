// SPDX-License-Identifier: Apache-2.0
// karcher: the Riemannian mean of the models' directions on the sphere, by iteration, times the mean of their norms; models weigh
// the same. Everything happens in coefficients over the Gram. Karcher 1977; mergekit's iteration, whose numerics round the scalars
// of each step, and the steps of the elements too.
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

void scale_by(std::vector<double> *v, double factor) {
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
    scale_by(&mean, 1 / length);
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
    scale_by(&mean, 1 / span.norm(mean));
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

// The rounding chain: the scalars of the tensor, found in coefficients, then its steps repeated on the elements. Numbers, in order:
// of each model its norm (0: it does not count); the factor at the end; the norm of the first mean (0: the first model's direction);
// then for each iteration of each model the factor of its tangent (0: none) and its product with the mean, then the tangent's
// cosine, sine and norm, and the norm of the new mean.
std::vector<double> chain_numbers(const Statistic &s, int64_t max_iterations, double tolerance, const Rounding &r) {
  std::vector<double> out;
  std::vector<size_t> members;
  double scale = 0;
  for (size_t i = 0; i < s.n; ++i) {
    const double norm = r.scalar(std::sqrt(s.gram(i, i)));
    scale = r.scalar(scale + r.scalar(norm * r.scalar(1.0 / static_cast<double>(s.n))));
    if (norm > tolerance) members.push_back(i);
    out.push_back(norm > tolerance ? norm : 0);
  }
  out.push_back(scale);
  const Span span(s, members);
  const size_t n = members.size();
  const double share = r.scalar(1.0 / static_cast<double>(n));
  std::vector<double> mean(n, share);
  const double length = r.scalar(span.norm(mean));
  out.push_back(n == 0 || length < tolerance ? 0 : length);
  if (out.back() == 0) {
    mean.assign(n, 0);
    if (n > 0) mean[0] = 1;
  } else {
    scale_by(&mean, 1 / length);
  }
  for (int64_t step = 0; step < max_iterations; ++step) {
    std::vector<double> tangent(n, 0), numbers;
    for (size_t i = 0, m = 0; i < s.n; ++i) {
      numbers.insert(numbers.end(), {0, 0});
      if (m == n || members[m] != i) continue;
      const double cosine = std::clamp(r(span.with_unit(mean, m)), -1.0, 1.0), angle = r(std::acos(cosine)), sine = r(std::sin(angle));
      if (angle >= tolerance && sine != 0) {
        const double factor = r(share * r(angle / sine));
        tangent[m] += factor;
        for (size_t k = 0; k < n; ++k) tangent[k] -= factor * cosine * mean[k];
        numbers[2 * i] = factor;
        numbers[2 * i + 1] = cosine;
      }
      ++m;
    }
    const double size = r.scalar(span.norm(tangent)), c = r.scalar(std::cos(size)), sn = r.scalar(std::sin(size));
    if (size < tolerance) break;
    for (size_t k = 0; k < n; ++k) mean[k] = c * mean[k] + sn / size * tangent[k];
    const double unit = r.scalar(span.norm(mean));
    scale_by(&mean, 1 / unit);
    out.insert(out.end(), numbers.begin(), numbers.end());
    out.insert(out.end(), {c, sn, size, unit});
  }
  return out;
}

double follow_chain(const ElementBlock &block, size_t e, const Rounding &r) {
  const size_t n = block.inputs.size();
  const double *norms = block.coefficients.scalars.data(), *end = norms + block.coefficients.scalars.size();
  size_t members = 0, first = n;
  for (size_t i = n; i-- > 0;) {
    members += norms[i] != 0;
    if (norms[i] != 0) first = i;
  }
  if (members == 0) return 0;
  const double share = r.scalar(1.0 / static_cast<double>(members));
  const auto unit = [&](size_t i) { return r(block.inputs[i][e] / norms[i]); };
  double mean = 0;
  for (size_t i = 0; i < n; ++i) mean = norms[i] != 0 ? r(mean + r(share * unit(i))) : mean;
  mean = norms[n + 1] != 0 ? r(mean / norms[n + 1]) : unit(first);
  for (const double *step = norms + n + 2; step < end; step += 2 * n + 4) {
    const double *shape = step + 2 * n;  // cosine, sine, norm of the tangent; norm of the new mean
    double tangent = 0;
    for (size_t i = 0; i < n; ++i) {
      if (step[2 * i] != 0) tangent = r(tangent + r(step[2 * i] * r(unit(i) - r(step[2 * i + 1] * mean))));
    }
    mean = r(r(r(shape[0] * mean) + r(shape[1] * r(tangent / shape[2]))) / shape[3]);
  }
  return r(norms[n] * mean);
}

Program program(const Settings &settings) {
  const auto iterations = static_cast<int64_t>(settings.number("max_iter"));
  const double tolerance = settings.number("tol");
  Program out;
  out.stages.combine = CHORUS_MERGE_COEFFICIENTS;
  out.coefficients.weights.assign(settings.n_inputs(), 1);
  if (settings.n_inputs() == 1) return out;
  if (const Rounding r = settings.rounding(); r.is_active()) {
    out.passes.push_back({Reduction{}, [=](const Statistic &s, Coefficients *c) { c->scalars = chain_numbers(s, iterations, tolerance, r); }});
    out.element = [r](const ElementBlock &block) {
      for (size_t e = 0; e < block.count; ++e) block.out[e] = follow_chain(block, e, r);
    };
    return out;
  }
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
