// SPDX-License-Identifier: Apache-2.0
// linear: y = sum w_i x_i, by default over sum w_i. Model soups, Wortsman et al. 2022, arXiv 2203.05482.
#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

Program program(const Settings &settings) {
  Program out;
  out.coefficients.weights = settings.per_model("weight");
  if (settings.flag("normalize")) {
    check_sum(out.coefficients.weights);
    out.stages.combine = CHORUS_MERGE_MEAN;
  }
  return out;
}

}  // namespace

Method linear_method() {
  return {"linear",
          "weighted average of the models",
          BaseUse::kInput,
          1,
          CHORUS_MERGE_MAX_INPUTS,
          {weight_parameter(),
           {"normalize", ParameterType::kBoolean, false, false, 1, 0, 1, "divide by the sum of the weights"}},
          program};
}

}  // namespace chorus::merge
