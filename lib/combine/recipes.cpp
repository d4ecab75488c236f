// SPDX-License-Identifier: Apache-2.0
// Applying a recipe: other filters of the models go back to none.
#include "combine/recipes.h"

#include <cmath>

#include "runtime/error.h"

namespace chorus::combine {

void apply(const Recipe &recipe, Spec *spec) {
  if (spec->models.size() != recipe.weights.size()) {
    fail(CHORUS_INVALID_ARGUMENT, "spec has {} models; {} combines {}: add them first, in the order its comment names",
         spec->models.size(), recipe.name, recipe.weights.size());
  }
  for (const double weight : recipe.weights) {
    if (!std::isfinite(static_cast<float>(weight))) {
      fail(CHORUS_INVALID_ARGUMENT, "{} would give a model the weight {}; it must be finite, in f32 too", recipe.name, weight);
    }
  }
  spec->rule = recipe.rule;
  auto weight = recipe.weights.begin();
  for (chorus_combine_model &model : spec->models) {
    model.weight = *weight++;
    model.top_p = model.plausibility = 0;
    model.top_k = 0;
  }
  spec->models[0].top_p = recipe.top_p;
  spec->models[0].plausibility = recipe.plausibility;
}

double checked_strength(double value, const char *name) {
  if (!std::isfinite(value)) fail(CHORUS_INVALID_ARGUMENT, "{} is {}; it must be finite", name, value);
  return value;
}

double checked_share(double value, const char *name) {
  if (!(value > 0 && value <= 1)) fail(CHORUS_INVALID_ARGUMENT, "{} is {}; above 0, at most 1 is needed", name, value);
  return value;
}

}  // namespace chorus::combine
