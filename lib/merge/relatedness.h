// SPDX-License-Identifier: Apache-2.0
// Do the inputs of a merge look as if they shared an initialisation? A few samples tell: weights of different initialisations have
// a cosine of about 0, fine-tunes of one of more than 0.9.
#pragma once
#include <string>
#include <vector>

#include "merge/plan.h"

namespace chorus::merge {

// A warning for each model that looks unrelated to the first. Reads at most 16 KiB of 8 matrices of each model.
std::vector<std::string> unrelated_inputs(const Plan &plan);

}  // namespace chorus::merge
