// SPDX-License-Identifier: Apache-2.0
// sce: keep the elements whose differences vary most over the models, weigh the models by the energy of what is kept, elect signs,
// take the weighted mean of what agrees. Wan et al. 2024, arXiv 2408.07990; mergekit's constants.
#include <cmath>

#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

constexpr double kSmall = 1e-6;

// Energies to weights; all alike when there is next to none.
void set_weights(const Statistic &s, Coefficients *c) {
  double sum = 0;
  for (size_t i = 0; i < s.n; ++i) sum += s.gram(i, i) / static_cast<double>(s.elements);
  for (size_t i = 0; i < s.n; ++i) {
    c->weights[i] = sum < kSmall ? 1.0 / static_cast<double>(s.n) : s.gram(i, i) / static_cast<double>(s.elements) / sum;
  }
}

Program program(const Settings &settings) {
  const double topk = settings.number("select_topk");
  Program out;
  out.stages.operand = CHORUS_OPERAND_DELTA;
  out.stages.consensus = CHORUS_CONSENSUS_SIGN;
  out.stages.combine = CHORUS_MERGE_MEAN_OF_KEPT;
  out.stages.divisor_floor = kSmall;
  out.stages.add_base = true;
  out.coefficients.weights.assign(settings.n_inputs(), 1);
  Reduction energy;
  energy.operand = CHORUS_OPERAND_DELTA;
  if (topk < 1) {
    out.stages.sparsify = energy.sparsify = CHORUS_SPARSIFY_STATISTIC_CUT;
    energy.predicate = CHORUS_PREDICATE_KEPT;
    add_selection(&out, 0, {0}, true);
    // How many are wanted depends on how many vary at all: a bin of its own holds variances that f32 takes for 0.
    const auto take_upper = out.passes[0].then;
    out.passes[0].then = [=](const Statistic &s, Coefficients *c) {
      uint64_t varying = 0;
      for (size_t bin = 1; bin < s.counts.size(); ++bin) varying += s.counts[bin];
      c->selections[0].wanted = {static_cast<uint64_t>(std::floor(topk * static_cast<double>(varying)))};
      take_upper(s, c);
    };
  }
  out.passes.push_back({energy, set_weights});
  return out;
}

}  // namespace

Method sce_method() {
  return {"sce",
          "elements that vary most between the models, weighed by energy, with an elected sign",
          BaseUse::kRequired,
          1,
          CHORUS_MERGE_MAX_INPUTS,
          {{"select_topk", ParameterType::kNumber, false, false, 1, 0, 1, "share of the varying elements that is kept"}},
          program};
}

}  // namespace chorus::merge
