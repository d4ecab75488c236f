// SPDX-License-Identifier: Apache-2.0
// breadcrumbs, breadcrumbs_ties: drop both the smallest elements of a difference and its gamma n largest, keep floor(density n)
// between them. Davari and Belilovsky 2023, arXiv 2312.06795 (their beta is gamma here, as in mergekit).
#include <algorithm>
#include <cmath>

#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

uint64_t share(double part, uint64_t elements) {
  return std::min(elements, static_cast<uint64_t>(std::floor(part * static_cast<double>(elements))));
}

Program program(const Settings &settings, bool consensus) {
  Program out = delta_program(settings, consensus);
  const std::vector<double> &density = settings.per_model("density"), &gamma = settings.per_model("gamma");
  if (std::ranges::all_of(density, [](double d) { return d >= 1; })) return out;
  const uint64_t n = settings.elements();
  std::vector<uint64_t> from_lower, from_upper;  // elements above each end of the band
  for (size_t i = 0; i < density.size(); ++i) {
    const uint64_t target = share(density[i], n), top = std::min(share(gamma[i], n), n - target);
    from_upper.push_back(density[i] >= 1 ? 0 : top);
    from_lower.push_back(target + from_upper.back());
  }
  out.stages.sparsify = CHORUS_SPARSIFY_BAND;
  add_selection(&out, 0, std::move(from_lower));
  add_selection(&out, 1, std::move(from_upper));
  if (settings.flag("rescale")) add_l1_rescale(&out);
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
