// SPDX-License-Identifier: Apache-2.0
// A row's scores in double precision, and what a gradient with respect to them is with respect to its logits.
#pragma once
#include <cstdint>
#include <vector>

#include "chorus/route.h"

namespace chorus::route {

// Row `row` of [T, n] (f64, f32, f16, bf16) as double.
void read_row(const chorus_tensor &t, int64_t row, std::vector<double> *out);
// Row `row` of an f32 or f64 output, each element rounded once.
void write_row(const chorus_tensor &t, int64_t row, const std::vector<double> &values);

// Scores of x (already divided by the temperature). softmax: over the entries that are no NaN; NaN entries get 0.
void score(chorus_route_score kind, const std::vector<double> &x, std::vector<double> *out);

// gradient (of the scores, in place) becomes that of x. Entries that are NaN give 0, and so does a softmax row whose maximum is
// infinite.
void score_backward(chorus_route_score kind, const std::vector<double> &x, const std::vector<double> &scores,
                    std::vector<double> *gradient);

}  // namespace chorus::route
