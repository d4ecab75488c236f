// SPDX-License-Identifier: Apache-2.0
// ram: elements that one model changed come from it, those that several changed are their mean; changes up to epsilon count as
// none. ramplus_tl scales what is a model's own by 1 + r clamp(shared / own, 0, alpha). mergekit's.
#include <algorithm>
#include <cmath>

#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

// mergekit's chain: what one model alone changed, times its scale, plus each model's part of what several changed. With scales
// (ramplus_tl) that is f32 up to the end.
void take_changes(const ElementBlock &block, const Rounding &r, double epsilon, bool scaled) {
  const std::vector<double> &scales = block.coefficients.unique_scales;
  const size_t n = block.inputs.size();
  std::vector<double> delta(n);
  for (size_t e = 0; e < block.count; ++e) {
    double count = 0, sum = 0;
    for (size_t i = 0; i < n; ++i) {
      delta[i] = r(block.inputs[i][e] - block.base[e]);
      if (!(std::abs(delta[i]) > epsilon)) delta[i] = 0;
      count += delta[i] != 0;
    }
    for (size_t i = 0; i < n; ++i) {
      const double part = count > 1 ? r(delta[i] / count) : scaled ? r.scalar(delta[i] * r.scalar(scales[i])) : delta[i];
      sum = r.scalar(sum + part);
    }
    block.out[e] = r(block.base[e] + (scaled ? sum : r(sum)));
  }
}

Program program(const Settings &settings, bool scaled) {
  Program out;
  const Rounding r = settings.rounding();
  const double epsilon = r(settings.number("epsilon"));
  if (r.is_active()) out.element = [=](const ElementBlock &block) { take_changes(block, r, epsilon, scaled); };
  out.stages.operand = CHORUS_OPERAND_DELTA;
  out.stages.sparsify = CHORUS_SPARSIFY_MAGNITUDE_CUT;
  out.stages.combine = CHORUS_MERGE_MEAN_OF_KEPT;
  out.stages.add_base = true;
  out.coefficients.weights.assign(settings.n_inputs(), 1);
  out.coefficients.cuts.assign(settings.n_inputs(), epsilon);
  return out;
}

Program scaled_program(const Settings &settings) {
  Program out = program(settings, true);
  const double r = settings.number("r"), alpha = settings.number("alpha");
  Reduction count;
  count.operand = CHORUS_OPERAND_DELTA;
  count.statistic = CHORUS_STATISTIC_COUNT;
  count.predicate = CHORUS_PREDICATE_ABOVE_EPSILON;
  count.epsilon = settings.rounding()(settings.number("epsilon"));
  out.passes.push_back({count, [=](const Statistic &s, Coefficients *c) {
                          for (size_t i = 0; i < s.n; ++i) {
                            const auto own = static_cast<double>(s.counts[i * s.n]);
                            double shared = 0;
                            for (size_t m = 1; m < s.n; ++m) shared += static_cast<double>(s.counts[i * s.n + m]);
                            c->unique_scales.push_back(own == 0 ? 1.0 : 1 + r * std::clamp(shared / own, 0.0, alpha));
                          }
                        }});
  return out;
}

const Parameter kEpsilon = {"epsilon", ParameterType::kNumber, false, false, 1e-5, 0, kInfinity, "changes of at most this magnitude count as none"};

}  // namespace

Method ram_method() {
  return {"ram", "a model's own changes as they are, shared ones averaged", BaseUse::kRequired, 1, CHORUS_MERGE_MAX_INPUTS, {kEpsilon},
          [](const Settings &settings) { return program(settings, false); }};
}

Method ramplus_tl_method() {
  return {"ramplus_tl",
          "as ram, with a model's own changes scaled up the more it shares",
          BaseUse::kRequired,
          1,
          CHORUS_MERGE_MAX_INPUTS,
          {kEpsilon,
           {"r", ParameterType::kNumber, false, false, 0.1, -kInfinity, kInfinity, "strength of the scaling"},
           {"alpha", ParameterType::kNumber, false, false, 0.2, 0, kInfinity, "largest ratio of shared to own changes that counts"}},
          scaled_program};
}

}  // namespace chorus::merge
