// SPDX-License-Identifier: Apache-2.0
// dare_linear, dare_ties: keep each element of a difference at random with probability `density`, rescale, then sum, or elect a
// sign first. Yu et al. 2024, arXiv 2311.03099; the factor is sum|d| / sum|kept|, as in mergekit (the paper's is 1/density).
#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

Program program(const Settings &settings, bool consensus) {
  Program out = delta_program(settings, consensus);
  if (thin(settings, &out) && settings.flag("rescale")) add_l1_rescale(settings, &out);
  return out;
}

Method dare(const char *name, const char *summary, Program (*make)(const Settings &)) {
  return {name,
          summary,
          BaseUse::kRequired,
          1,
          CHORUS_MERGE_MAX_INPUTS,
          {weight_parameter(),
           {"density", ParameterType::kNumber, true, false, 1, 0, 1, "probability of keeping an element"},
           {"lambda", ParameterType::kNumber, false, false, 1, -kInfinity, kInfinity, "factor of the merged differences"},
           normalize_parameter(false),
           {"rescale", ParameterType::kBoolean, false, false, 1, 0, 1, "restore the sum of magnitudes after dropping"}},
          make};
}

}  // namespace

Method dare_linear_method() {
  return dare("dare_linear", "differences thinned at random, rescaled, summed", [](const Settings &s) { return program(s, false); });
}

Method dare_ties_method() {
  return dare("dare_ties", "differences thinned at random, rescaled, with an elected sign", [](const Settings &s) { return program(s, true); });
}

}  // namespace chorus::merge
