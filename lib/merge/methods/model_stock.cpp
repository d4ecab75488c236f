// SPDX-License-Identifier: Apache-2.0
// model_stock: y = t mean(x) + (1 - t) base, t = N c / (1 + (N - 1) c) with c the mean cosine between the differences. Jang et al.
// 2024, arXiv 2403.19522. Norm products below 1e-6 count as 1e-6, as in mergekit.
#include <algorithm>
#include <cmath>

#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

constexpr double kSmall = 1e-6;

double mean_cosine(const Statistic &s, const Rounding &r) {
  const auto norm = [&](size_t i) { return r(std::sqrt(s.gram(i, i))); };
  double sum = 0;
  for (size_t i = 0; i < s.n; ++i) {
    for (size_t j = i + 1; j < s.n; ++j) {
      sum += std::clamp(r(r(s.gram(i, j)) / std::max(r(norm(i) * norm(j)), r(kSmall))), -1.0, 1.0);
    }
  }
  return r(sum / (0.5 * static_cast<double>(s.n) * static_cast<double>(s.n - 1)));
}

// t, of one tensor or row.
double between(const Statistic &s, const Rounding &r) {
  const double n = static_cast<double>(s.n), cosine = mean_cosine(s, r), divisor = r(1 + r((n - 1) * cosine));
  return std::abs(divisor) < kSmall ? 0 : r(r(n * cosine) / divisor);
}

// mergekit's chain: the mean of the models, then towards the base.
void move_to_mean(const ElementBlock &block, const Rounding &r) {
  const double t = block.weights[0], rest = r(1 - t), n = static_cast<double>(block.inputs.size());
  for (size_t e = 0; e < block.count; ++e) {
    double mean = 0;
    for (const double *x : block.inputs) mean = r(mean + x[e]);
    block.out[e] = r(r(t * r(mean / n)) + r(rest * block.base[e]));
  }
}

Program program(const Settings &settings) {
  const Rounding r = settings.rounding();
  Program out;
  out.stages.operand = CHORUS_OPERAND_DELTA;
  out.stages.add_base = true;
  out.stages.granularity = settings.flag("filter_wise") ? CHORUS_PER_ROW : CHORUS_PER_TENSOR;
  out.coefficients.weights.assign(settings.n_inputs(), 1);
  Reduction gram;
  gram.operand = CHORUS_OPERAND_DELTA;
  gram.granularity = out.stages.granularity;
  out.passes.push_back({gram, [r](const Statistic &s, Coefficients *c) {
                          const double t = between(s, r);
                          c->weights.assign(s.n, r.is_active() ? t : t / static_cast<double>(s.n));
                        }});
  if (r.is_active()) out.element = [r](const ElementBlock &block) { move_to_mean(block, r); };
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
