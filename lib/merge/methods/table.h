// SPDX-License-Identifier: Apache-2.0
// One function per file of this folder; what several of them share.
#pragma once
#include <limits>

#include "merge/methods/method.h"

namespace chorus::merge {

Method breadcrumbs_method();
Method breadcrumbs_ties_method();
Method dare_linear_method();
Method dare_ties_method();
Method della_method();
Method della_linear_method();
Method karcher_method();
Method linear_method();
Method model_stock_method();
Method multislerp_method();
Method nuslerp_method();
Method passthrough_method();
Method ram_method();
Method ramplus_tl_method();
Method sce_method();
Method slerp_method();
Method task_arithmetic_method();
Method ties_method();

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// "weight", needed of every model.
Parameter weight_parameter();

// "normalize", with this default.
Parameter normalize_parameter(bool fallback);
// Stages of base + lambda * (what is combined of the weighted deltas), with "weight", "lambda" and "normalize" of `settings`.
Program delta_program(const Settings &settings, bool consensus);

// Adds the passes that find, for each input, the cut above which its wanted[i] largest |deltas| lie, the first in element order
// of equal ones, as selection `number`. With the variance (one cut for all) `wanted` is one number.
void add_selection(Program *program, size_t number, std::vector<uint64_t> wanted, bool of_variance = false);
// Adds the passes of the factor sum|delta| / sum|what the sparsify stage keeps|, and the stage that applies it.
void add_l1_rescale(Program *program);

// Fails INVALID_ARGUMENT when weights that are to be normalised sum to 0.
void check_sum(std::span<const double> weights);

}  // namespace chorus::merge
