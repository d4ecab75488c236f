// SPDX-License-Identifier: Apache-2.0
// passthrough: y = x, or scale * x. Stacks layers of models when the recipe has slices.
#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

Program program(const Settings &settings) {
  const double scale = settings.per_model("scale")[0];
  Program out;
  out.coefficients.weights = {is_unset(scale) ? 1.0 : scale};
  return out;
}

}  // namespace

Method passthrough_method() {
  return {"passthrough",
          "the tensors of one model as they are; for stacking slices",
          BaseUse::kInput,
          1,
          1,
          {{"scale", ParameterType::kNumber, true, false, kUnset, -kInfinity, kInfinity, "factor of every element; left out: copied"}},
          program};
}

}  // namespace chorus::merge
