// SPDX-License-Identifier: Apache-2.0
// model_stock: y = t mean(x) + (1 - t) base, t = N c / (1 + (N - 1) c) with c the mean cosine between the differences. Jang et al.
// 2024, arXiv 2403.19522. Norm products below 1e-6 count as 1e-6, as in mergekit.
#include <algorithm>
#include <cmath>

#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

constexpr double kSmall = 1e-6;

double mean_cosine(const Statistic &s) {
  double sum = 0;
  for (size_t i = 0; i < s.n; ++i) {
    for (size_t j = i + 1; j < s.n; ++j) {
      sum += std::clamp(s.gram(i, j) / std::max(std::sqrt(s.gram(i, i)) * std::sqrt(s.gram(j, j)), kSmall), -1.0, 1.0);
    }
  }
  return sum / (0.5 * static_cast<double>(s.n) * static_cast<double>(s.n - 1));
}

void set_weights(const Statistic &s, Coefficients *c) {
  const double n = static_cast<double>(s.n), cosine = mean_cosine(s), divisor = 1 + (n - 1) * cosine;
  const double t = std::abs(divisor) < kSmall ? 0 : n * cosine / divisor;
  c->weights.assign(s.n, t / n);
}

Program program(const Settings &settings) {
  Program out;
  out.stages.operand = CHORUS_OPERAND_DELTA;
  out.stages.add_base = true;
  out.stages.granularity = settings.flag("filter_wise") ? CHORUS_PER_ROW : CHORUS_PER_TENSOR;
  out.coefficients.weights.assign(settings.n_inputs(), 1);
  Reduction gram;
  gram.operand = CHORUS_OPERAND_DELTA;
  gram.granularity = out.stages.granularity;
  out.passes.push_back({gram, set_weights});
  return out;
}

}  // namespace

Method model_stock_method() {
  return {"model_stock",
          "between the base and the mean of fine-tunes, by the angle between them",
          BaseUse::kRequired,
          2,
          CHORUS_MERGE_MAX_INPUTS,
          {{"filter_wise", ParameterType::kBoolean, false, false, 0, 0, 1, "one angle for each row instead of the tensor"}},
          program};
}

}  // namespace chorus::merge
