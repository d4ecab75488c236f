// SPDX-License-Identifier: Apache-2.0
// breadcrumbs, breadcrumbs_ties: drop both the smallest elements of a difference and its gamma n largest, keep floor(density n)
// between them. Davari and Belilovsky 2023, arXiv 2312.06795 (their beta is gamma here, as in mergekit).
#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

Program program(const Settings &settings, bool consensus) {
  Program out = delta_program(settings, consensus);
  if (cut_band(settings, &out) && settings.flag("rescale")) add_l1_rescale(settings, &out);
  return out;
}

Method breadcrumbs(const char *name, const char *summary, Program (*make)(const Settings &)) {
  return {name,
          summary,
          BaseUse::kRequired,
          1,
          CHORUS_MERGE_MAX_INPUTS,
          {weight_parameter(),
           {"density", ParameterType::kNumber, true, false, 1, 0, 1, "share of the elements kept"},
           {"gamma", ParameterType::kNumber, true, false, 0.01, 0, 1, "share of the elements dropped for being the largest"},
           {"lambda", ParameterType::kNumber, false, false, 1, -kInfinity, kInfinity, "factor of the merged differences"},
           normalize_parameter(false),
           {"rescale", ParameterType::kBoolean, false, false, 0, 0, 1, "restore the sum of magnitudes after dropping"}},
          make};
}

}  // namespace

Method breadcrumbs_method() {
  return breadcrumbs("breadcrumbs", "differences without their smallest and largest elements, summed",
                     [](const Settings &s) { return program(s, false); });
}

Method breadcrumbs_ties_method() {
  return breadcrumbs("breadcrumbs_ties", "differences without their smallest and largest elements, with an elected sign",
                     [](const Settings &s) { return program(s, true); });
}

}  // namespace chorus::merge
