// SPDX-License-Identifier: Apache-2.0
// Published recipes as settings of a spec (chorus/recipes.h has the formulas and their sources).
#pragma once
#include <initializer_list>

#include "combine/combiner.h"

namespace chorus::combine {

// What a recipe sets: the rule, a weight per model, and filters of the first model.
struct Recipe {
  const char *name;
  chorus_combine_rule rule;
  std::initializer_list<double> weights;
  double top_p = 0, plausibility = 0;  // 0: none
};

// Fails INVALID_ARGUMENT where the spec has another number of models, or a weight is not finite in f32.
void apply(const Recipe &recipe, Spec *spec);

// `value` finite; of a filter within (0, 1]. Fails INVALID_ARGUMENT.
double checked_strength(double value, const char *name);
double checked_share(double value, const char *name);

}  // namespace chorus::combine
