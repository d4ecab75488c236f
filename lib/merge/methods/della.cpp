// SPDX-License-Identifier: Apache-2.0
// della, della_linear: keep each element of a difference with a probability between density - epsilon and density + epsilon by
// its magnitude's rank in its row. Deep, Bhardwaj, Poria 2024, arXiv 2406.11617.
#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

Program program(const Settings &settings, bool consensus) {
  Program out = delta_program(settings, consensus);
  if (thin_by_rank(settings, &out) && settings.flag("rescale")) add_l1_rescale(settings, &out);
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
