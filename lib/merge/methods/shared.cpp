// SPDX-License-Identifier: Apache-2.0
// What several methods share.
#include <numeric>

#include "merge/methods/table.h"
#include "runtime/error.h"

namespace chorus::merge {

Parameter weight_parameter() {
  return {"weight", ParameterType::kNumber, true, true, 0, -kInfinity, kInfinity, "weight of the model; 0: it is not read"};
}

void check_sum(std::span<const double> weights) {
  if (std::accumulate(weights.begin(), weights.end(), 0.0) != 0.0) return;
  fail(CHORUS_INVALID_ARGUMENT, "the weights are [{}], which sum to 0; normalised they are nothing. Set normalize: false, or other weights",
       fmt::join(weights, ", "));
}

}  // namespace chorus::merge
