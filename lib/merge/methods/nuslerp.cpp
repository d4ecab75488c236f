// SPDX-License-Identifier: Apache-2.0
// nuslerp: slerp of two models at t = w2 / (w1 + w2), of the whole tensor or row by row, of the models or of their differences
// from a base. mergekit's; norms are at least 1e-7, and vectors are parallel only where the cosine is exactly 1 or -1.
#include <algorithm>
#include <cmath>

#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

constexpr double kSmallNorm = 1e-7, kParallel = 1e-16, kSmallSum = 1e-6;

// Factors of the two vectors and what their sum is divided by; 1 on a straight line.
struct Arc {
  double first, second, divisor;
};

Arc arc_of(const Statistic &s, double t, const Rounding &r) {
  const auto length = [&](size_t i) { return std::max(r(std::sqrt(s.gram(i, i))), r(kSmallNorm)); };
  const double cosine = std::clamp(r(s.gram(0, 1) / length(0) / length(1)), -1.0, 1.0);
  if (r(1 - r(cosine * cosine)) <= kParallel) return {r.scalar(1 - t), r.scalar(t), 1};
  const double angle = r(std::acos(cosine));
  const auto factor = [&](double share) { return r(std::sin(r(r.scalar(share) * angle))); };
  return {factor(1 - t), factor(t), r(std::sin(angle))};
}

// mergekit's chain; without rounding the arc's factors are divided beforehand.
void walk_the_arc(const ElementBlock &block, const Rounding &r) {
  const double *w = block.weights, *base = block.base;
  const auto from_base = [&](double x, size_t e) { return base != nullptr ? r(x - base[e]) : x; };
  for (size_t e = 0; e < block.count; ++e) {
    const double a = from_base(block.inputs[0][e], e), b = from_base(block.inputs[1][e], e);
    const double y = r(r(r(w[0] * a) + r(w[1] * b)) / w[2]);
    block.out[e] = base != nullptr ? r(base[e] + y) : y;
  }
}

Program program(const Settings &settings) {
  const std::vector<double> &w = settings.per_model("weight");
  const double sum = w[0] + w[1], t = std::abs(sum) < kSmallSum ? 0.5 : w[1] / sum;
  Program out;
  Reduction gram;
  if (settings.has_base()) {
    gram.operand = out.stages.operand = CHORUS_OPERAND_DELTA;
    out.stages.add_base = true;
  } else {
    out.stages.combine = CHORUS_MERGE_COEFFICIENTS;
  }
  out.coefficients.weights = {1 - t, t};
  if (t == 0 || t == 1) return out;
  if (!settings.flag("nuslerp_flatten")) {
    gram.granularity = out.stages.granularity = CHORUS_PER_ROW;
    if (settings.flag("nuslerp_row_wise")) out.row_axis = 0;
  }
  const Rounding r = settings.rounding();
  if (r.is_active()) {
    out.coefficients.weights.push_back(1);  // the divisor
    out.element = [r](const ElementBlock &block) { walk_the_arc(block, r); };
  }
  out.passes.push_back({gram, [t, r](const Statistic &s, Coefficients *c) {
                          const Arc arc = arc_of(s, t, r);
                          c->weights = {arc.first / arc.divisor, arc.second / arc.divisor};
                          if (r.is_active()) c->weights = {arc.first, arc.second, arc.divisor};
                        }});
  return out;
}

}  // namespace

Method nuslerp_method() {
  return {"nuslerp",
          "spherical interpolation between two models by their weights, or of their differences from a base",
          BaseUse::kOptional,
          2,
          2,
          {weight_parameter(),
           {"nuslerp_flatten", ParameterType::kBoolean, false, false, 1, 0, 1, "the tensor as one vector; else vectors along the last dimension"},
           {"nuslerp_row_wise", ParameterType::kBoolean, false, false, 0, 0, 1, "unless flattened: vectors along the first dimension"}},
          program};
}

}  // namespace chorus::merge
