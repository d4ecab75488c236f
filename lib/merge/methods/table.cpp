// SPDX-License-Identifier: Apache-2.0
// The table of merge methods: one line each.
#include "merge/methods/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace chorus::merge {
namespace {

const std::vector<Method> &table() {
  static const std::vector<Method> methods = {
      arcee_fusion_method(),
      breadcrumbs_method(),
      breadcrumbs_ties_method(),
      custom_method(),
      dare_linear_method(),
      dare_ties_method(),
      della_method(),
      della_linear_method(),
      karcher_method(),
      linear_method(),
      model_stock_method(),
      multislerp_method(),
      nearswap_method(),
      nuslerp_method(),
      passthrough_method(),
      ram_method(),
      ramplus_tl_method(),
      sce_method(),
      slerp_method(),
      task_arithmetic_method(),
      ties_method(),
  };
  return methods;
}

// Parameters of mergekit's methods, and those of its generalised task arithmetic that change nothing.
constexpr std::string_view kParameters[] = {
    "alpha", "density", "epsilon", "eps",   "filter_wise", "gamma",   "int8_mask",       "lambda", "max_iter", "normalize",
    "normalize_weights", "nuslerp_flatten", "nuslerp_row_wise", "r",  "rescale", "rescale_norm", "scale",  "select_topk",
    "t", "tol", "weight"};

}  // namespace

const double kUnset = std::numeric_limits<double>::quiet_NaN();
bool is_unset(double value) { return std::isnan(value); }

std::string range_of(const Parameter &parameter) {
  if (parameter.type == ParameterType::kWord) return fmt::format("one of {}", fmt::join(parameter.words, ", "));
  const bool below = std::isinf(parameter.minimum), above = std::isinf(parameter.maximum);
  if (below && above) return "any number";
  if (above) return fmt::format("at least {}", parameter.minimum);
  if (below) return fmt::format("at most {}", parameter.maximum);
  return fmt::format("{} to {}", parameter.minimum, parameter.maximum);
}

std::span<const Method> methods() { return table(); }

const Method *find_method(std::string_view name) {
  const auto found = std::ranges::find_if(table(), [&](const Method &method) { return name == method.name; });
  return found == table().end() ? nullptr : &*found;
}

bool is_known_parameter(std::string_view name) {
  if (std::ranges::find(kParameters, name) != std::end(kParameters)) return true;
  return std::ranges::any_of(table(), [&](const Method &method) {
    return std::ranges::any_of(method.parameters, [&](const Parameter &parameter) { return name == parameter.name; });
  });
}

}  // namespace chorus::merge
