// SPDX-License-Identifier: Apache-2.0
// The last pass of a method that is a function of the elements at one place: widened to f64, rounded to the work format where the
// numerics have one, computed on the host, stored with one rounding.
#pragma once
#include "merge/plan.h"

namespace chorus::merge {

// `begin` and `count` of a piece (of whole rows where the program has weights per row), as kernels take it.
void apply_element(const Job &job, const Coefficients &c, uint64_t begin, uint64_t count, std::span<const void *const> inputs,
                   const void *base, void *output);

}  // namespace chorus::merge
