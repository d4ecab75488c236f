// SPDX-License-Identifier: Apache-2.0
// della, della_linear: keep each element of a difference with a probability between density - epsilon and density + epsilon by
// its magnitude's rank in its row. Deep, Bhardwaj, Poria 2024, arXiv 2406.11617.
#include <algorithm>

#include "merge/methods/table.h"
#include "runtime/error.h"

namespace chorus::merge {
namespace {

void check_range(double density, double epsilon) {
  if (density <= 0 || density >= 1 || (density - epsilon > 0 && density + epsilon < 1)) return;
  fail(CHORUS_INVALID_ARGUMENT, "density {} with epsilon {}: density - epsilon and density + epsilon must lie between 0 and 1", density, epsilon);
}

Program program(const Settings &settings, bool consensus) {
  Program out = delta_program(settings, consensus);
  Coefficients &c = out.coefficients;
  c.densities = settings.per_model("density");
  c.epsilons = settings.per_model("epsilon");
  if (std::ranges::all_of(c.densities, [](double d) { return d >= 1; })) return out;
  if (settings.shape().size() > 2) {
    fail(CHORUS_UNIMPLEMENTED, "{} dimensions: ranks within columns are not implemented yet; two dimensions are", settings.shape().size());
  }
  for (size_t i = 0; i < c.densities.size(); ++i) {
    check_range(c.densities[i], c.epsilons[i]);
    if (c.densities[i] <= 0 || c.densities[i] >= 1) c.epsilons[i] = 0;  // none or all, whatever the rank
  }
  c.keys = settings.keys();
  out.stages.sparsify = CHORUS_SPARSIFY_RANK;
  out.stages.granularity = CHORUS_PER_ROW;
  if (settings.flag("rescale")) add_l1_rescale(&out);
  return out;
}

Method della(const char *name, const char *summary, bool normalize, Program (*make)(const Settings &)) {
  return {name,
          summary,
          BaseUse::kRequired,
          1,
          CHORUS_MERGE_MAX_INPUTS,
          {weight_parameter(),
           {"density", ParameterType::kNumber, true, false, 1, 0, 1, "mean probability of keeping an element"},
           {"epsilon", ParameterType::kNumber, true, false, 0.15, 0, 1, "how far the probability goes below and above density"},
           {"lambda", ParameterType::kNumber, false, false, 1, -kInfinity, kInfinity, "factor of the merged differences"},
           normalize_parameter(normalize),
           {"rescale", ParameterType::kBoolean, false, false, 1, 0, 1, "restore the sum of magnitudes after dropping"}},
          make};
}

}  // namespace

Method della_method() {
  return della("della", "differences thinned by rank, rescaled, with an elected sign", true, [](const Settings &s) { return program(s, true); });
}

Method della_linear_method() {
  return della("della_linear", "differences thinned by rank, rescaled, summed", false, [](const Settings &s) { return program(s, false); });
}

}  // namespace chorus::merge
