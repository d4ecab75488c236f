// SPDX-License-Identifier: Apache-2.0
// What both iterations share: their settings, a point with its derivatives, and the solution they hand back.
#pragma once
#include <cstdint>

#include "chorus/fit.h"
#include "combine/ordered_sums.h"
#include "combine/symmetric.h"

namespace chorus::combine {

struct Settings {
  int32_t max_iterations;
  double tolerance, ridge;
};

// The mean log-likelihood at some weights, with its gradient and minus its Hessian (positive semidefinite).
struct Evaluation {
  double value = 0;
  Vector gradient;
  Matrix curvature;
};

struct Solution {
  chorus_fit_status status = CHORUS_FIT_RUNNING;
  int32_t iterations = 0;
  double log_likelihood = 0, gap = 0;
  Vector weights, standard_errors;
  std::vector<uint32_t> flags;
};

// Index of (i, j), i <= j, in an upper triangle stored row by row.
inline size_t triangle_index(size_t i, size_t j, size_t n) { return i * n - i * (i + 1) / 2 + j; }

// Standard errors from `information` (the curvature summed over tokens), over directions `basis` (columns; the directions in
// which weights may move). Weights that a null direction touches are not identified.
void set_errors(const Matrix &information, const Matrix &basis, size_t directions, Solution *solution);

}  // namespace chorus::combine
