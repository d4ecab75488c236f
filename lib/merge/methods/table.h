// SPDX-License-Identifier: Apache-2.0
// One function per file of this folder; what several of them share.
#pragma once
#include <limits>

#include "merge/methods/method.h"

namespace chorus::merge {

Method arcee_fusion_method();
Method breadcrumbs_method();
Method breadcrumbs_ties_method();
Method custom_method();
Method dare_linear_method();
Method dare_ties_method();
Method della_method();
Method della_linear_method();
Method karcher_method();
Method linear_method();
Method model_stock_method();
Method multislerp_method();
Method nearswap_method();
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

// What selections and sums of these stages look at: x, or the delta whatever weighs its vote.
chorus_merge_operand selecting_operand(const Stages &stages);
// Adds the passes that find, for each input, the cut above which its wanted[i] largest |deltas| lie, the first in element order
// of equal ones, as selection `number`. With the variance (one cut for all) `wanted` is one number.
void add_selection(Program *program, size_t number, std::vector<uint64_t> wanted, bool of_variance = false);
// The sparsify stages, from "density", "gamma", "epsilon" and "select_topk" of `settings`. False, and nothing added, where all is kept.
bool cut_magnitudes(const Settings &settings, Program *program);
bool cut_band(const Settings &settings, Program *program);
bool thin(const Settings &settings, Program *program);
bool thin_by_rank(const Settings &settings, Program *program);
bool keep_varying(const Settings &settings, Program *program);
// Weights from the energy of what the sparsify stage keeps, as shares of their sum.
void weigh_by_energy(const Settings &settings, Program *program);
// Adds the passes that find the magnitudes of these ranks, 1 the largest, of the one input's operand in `reduction`, as cuts of
// selections 0, 1, …
void add_order_statistics(Program *program, Reduction reduction, const std::vector<uint64_t> &from_top);
// Adds the passes of the factor sum|delta| / sum|what the sparsify stage keeps|, and the stage that applies it.
void add_l1_rescale(const Settings &settings, Program *program);

// Fails INVALID_ARGUMENT when weights that are to be normalised sum to 0.
void check_sum(std::span<const double> weights);

}  // namespace chorus::merge
