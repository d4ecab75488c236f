// SPDX-License-Identifier: Apache-2.0
// One function per file of this folder; what several of them share.
#pragma once
#include <limits>

#include "merge/methods/method.h"

namespace chorus::merge {

Method linear_method();
Method passthrough_method();
Method slerp_method();
Method task_arithmetic_method();

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// "weight", needed of every model.
Parameter weight_parameter();

// Fails INVALID_ARGUMENT when weights that are to be normalised sum to 0.
void check_sum(std::span<const double> weights);

}  // namespace chorus::merge
