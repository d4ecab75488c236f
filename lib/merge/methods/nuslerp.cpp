// SPDX-License-Identifier: Apache-2.0
// nuslerp: slerp of two models at t = w2 / (w1 + w2), of the whole tensor or row by row, of the models or of their differences
// from a base. mergekit's; norms are at least 1e-7, and vectors are parallel only where the cosine is exactly 1 or -1.
#include <algorithm>
#include <cmath>

#include "merge/methods/table.h"
#include "runtime/error.h"

namespace chorus::merge {
namespace {

constexpr double kSmallNorm = 1e-7, kParallel = 1e-16, kSmallSum = 1e-6;

std::vector<double> on_the_arc(const Statistic &s, double t) {
  const auto length = [&](size_t i) { return std::max(std::sqrt(s.gram(i, i)), kSmallNorm); };
  const double cosine = std::clamp(s.gram(0, 1) / length(0) / length(1), -1.0, 1.0);
  if (1 - cosine * cosine <= kParallel) return {1 - t, t};
  const double angle = std::acos(cosine), sine = std::sin(angle);
  return {std::sin((1 - t) * angle) / sine, std::sin(t * angle) / sine};
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
    if (settings.flag("nuslerp_row_wise")) {
      fail(CHORUS_UNIMPLEMENTED, "nuslerp_row_wise, vectors along the first dimension, is not implemented yet; leave it false");
    }
    gram.granularity = out.stages.granularity = CHORUS_PER_ROW;
  }
  out.passes.push_back({gram, [t](const Statistic &s, Coefficients *c) { c->weights = on_the_arc(s, t); }});
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
