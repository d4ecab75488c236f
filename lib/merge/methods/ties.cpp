// SPDX-License-Identifier: Apache-2.0
// ties: trim each difference from the base to its largest elements, elect a sign for each element by the weighted sum, take
// the weighted mean of what agrees. Yadav et al. 2023, arXiv 2306.01708; k = max(1, floor(density n)) as in mergekit.
#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

Program program(const Settings &settings) {
  Program out = delta_program(settings, true);
  if (cut_magnitudes(settings, &out) && settings.flag("rescale")) add_l1_rescale(settings, &out);
  return out;
}

}  // namespace

Method ties_method() {
  return {"ties",
          "trimmed differences, an elected sign, the mean of what agrees",
          BaseUse::kRequired,
          1,
          CHORUS_MERGE_MAX_INPUTS,
          {weight_parameter(),
           {"density", ParameterType::kNumber, true, false, 1, 0, 1, "share of the elements kept, the largest"},
           {"lambda", ParameterType::kNumber, false, false, 1, -kInfinity, kInfinity, "factor of the merged differences"},
           normalize_parameter(true),
           {"rescale", ParameterType::kBoolean, false, false, 0, 0, 1, "restore the sum of magnitudes after trimming"}},
          program};
}

}  // namespace chorus::merge
