// SPDX-License-Identifier: Apache-2.0
// task_arithmetic: y = base + lambda * sum w_i (x_i - base), optionally over sum w_i. Ilharco et al. 2023, arXiv 2212.04089.
#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

Program program(const Settings &settings) {
  Program out;
  out.stages.operand = CHORUS_OPERAND_DELTA;
  out.stages.add_base = true;
  out.coefficients.weights = settings.per_model("weight");
  out.coefficients.lambda = settings.number("lambda");
  if (settings.flag("normalize")) {
    check_sum(out.coefficients.weights);
    out.stages.combine = CHORUS_MERGE_MEAN;
  }
  return out;
}

}  // namespace

Method task_arithmetic_method() {
  return {"task_arithmetic",
          "base plus the weighted differences of the models from it",
          BaseUse::kRequired,
          1,
          CHORUS_MERGE_MAX_INPUTS,
          {weight_parameter(),
           {"lambda", ParameterType::kNumber, false, false, 1, -kInfinity, kInfinity, "factor of the summed differences"},
           {"normalize", ParameterType::kBoolean, false, false, 0, 0, 1, "divide by the sum of the weights"}},
          program};
}

}  // namespace chorus::merge
