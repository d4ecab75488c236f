// SPDX-License-Identifier: Apache-2.0
// The value of a parameter in a recipe: a number or boolean, a gradient over the layers, or a list of these by tensor name.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "merge/methods/method.h"
#include "merge/recipe/yaml.h"

namespace chorus::merge {

// What holds for the tensors whose name contains `filter`.
struct ValueCase {
  std::string filter;          // "" or "*": all
  std::vector<double> points;  // one: the same everywhere; more: over t from 0 to 1
};

struct Value {
  Place place;
  std::vector<ValueCase> cases;
  bool steps = false;  // booleans do not blend

  // At depth t in [0, 1] for the tensor called `name`: the first case that fits, its points interpolated linearly, or for
  // booleans point floor(t (n - 1)). Nothing when no case fits.
  std::optional<double> at(double t, std::string_view name) const;
  // The one number this is everywhere, if it is.
  std::optional<double> constant() const;
};

// Checks type and range of every number by `parameter`; errors go to `diagnostics`, and nothing comes back.
std::optional<Value> parse_value(const Node &node, const Parameter &parameter, Diagnostics *diagnostics);

}  // namespace chorus::merge
