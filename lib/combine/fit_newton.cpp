// SPDX-License-Identifier: Apache-2.0
// A damped Newton iteration turned inside out: each call takes one evaluation and places the next trial.
#include "combine/fit_newton.h"

#include <algorithm>
#include <cmath>

namespace chorus::combine {
namespace {

constexpr double kArmijo = 1e-4;
constexpr double kLongestMove = 8;   // of one weight in one step: far from the optimum the curvature may vanish
constexpr double kShortestStep = 1e-9;

}  // namespace

double Newton::objective(const Evaluation &at) const {
  double squares = 0;
  for (const double w : trial_) squares += w * w;
  return at.value - settings_.ridge / 2 * squares;
}

bool Newton::step(const Evaluation &at, int64_t tokens) {
  const double value = objective(at);
  const double slack = 1e-15 * std::abs(objective_);
  if (started_ && !(value >= objective_ + kArmijo * step_ * slope_ - slack)) {  // or NaN
    backtrack();
    return false;
  }
  objective_ = value;
  accept(at, tokens);
  return true;
}

void Newton::accept(const Evaluation &at, int64_t tokens) {
  const size_t n = trial_.size();
  solution_.iterations += started_ ? 1 : 0;
  started_ = true;
  solution_.weights = trial_;
  solution_.log_likelihood = at.value;
  Vector gradient = at.gradient;
  for (size_t i = 0; i < n; ++i) gradient[i] -= settings_.ridge * trial_[i];
  direction_ = solve_shifted(eigen_of(at.curvature), settings_.ridge, gradient);
  slope_ = 0;
  double longest = 0;
  for (size_t i = 0; i < n; ++i) {
    slope_ += gradient[i] * direction_[i];
    longest = std::max(longest, std::abs(direction_[i]));
  }
  solution_.gap = std::max(0.0, slope_ / 2);
  solution_.standard_errors.assign(n, 0);
  solution_.flags.assign(n, 0);
  Matrix information(n), basis(n);
  for (size_t i = 0; i < n; ++i) {
    basis(i, i) = 1;
    for (size_t j = 0; j < n; ++j) information(i, j) = at.curvature(i, j) * static_cast<double>(tokens);
  }
  set_errors(information, basis, n, &solution_);
  if (solution_.gap <= settings_.tolerance) {
    solution_.status = CHORUS_FIT_CONVERGED;
  } else if (solution_.iterations >= settings_.max_iterations) {
    solution_.status = CHORUS_FIT_MAX_ITERATIONS;
  } else {
    step_ = longest > kLongestMove ? kLongestMove / longest : 1;
    place_trial();
  }
}

void Newton::backtrack() {
  step_ /= 2;
  if (step_ < kShortestStep) {
    solution_.status = CHORUS_FIT_STALLED;
  } else {
    place_trial();
  }
}

void Newton::place_trial() {
  for (size_t i = 0; i < trial_.size(); ++i) trial_[i] = solution_.weights[i] + step_ * direction_[i];
}

}  // namespace chorus::combine
