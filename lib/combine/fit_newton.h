// SPDX-License-Identifier: Apache-2.0
// Weights of a log-linear mixture: Newton's method on a convex objective (KenLM's), damped by backtracking, with a ridge. It
// asks for one evaluation at a time, so that the data can be streamed.
#pragma once
#include "combine/fit_solution.h"

namespace chorus::combine {

class Newton {
 public:
  Newton(Vector start, const Settings &settings) : settings_(settings), trial_(std::move(start)) {}

  // The weights to evaluate next.
  const Vector &point() const { return trial_; }
  // Takes the evaluation there over `tokens` tokens. True when it became the best point.
  bool step(const Evaluation &at, int64_t tokens);
  bool done() const { return solution_.status != CHORUS_FIT_RUNNING; }
  const Solution &solution() const { return solution_; }

 private:
  double objective(const Evaluation &at) const;
  void accept(const Evaluation &at, int64_t tokens);
  void backtrack();
  void place_trial();

  Settings settings_;
  Vector trial_, direction_;
  double objective_ = 0;  // at the best point: what is maximised
  double slope_ = 0;      // along the direction
  double step_ = 1;
  bool started_ = false;
  Solution solution_;
};

}  // namespace chorus::combine
