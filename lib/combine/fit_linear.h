// SPDX-License-Identifier: Apache-2.0
// Weights of a linear mixture from gold log-probs: EM (Dempster, Laird and Rubin 1977; SRILM's compute-best-mix), with a step
// of sequential quadratic programming on the simplex where that gains (after mixsqp, Kim et al. 2020): EM alone can take
// 1e6 iterations for the last 1e-6 nats.
#pragma once
#include "combine/fit_solution.h"
#include "runtime/pool.h"

namespace chorus::combine {

// Gold log-probs of T tokens under N models, as p_i / max_j p_j with the sum of the maxima apart.
class GoldTable {
 public:
  explicit GoldTable(size_t n) : n_(n), maxima_(1), logs_(n) {}
  size_t n() const { return n_; }
  int64_t tokens() const { return tokens_; }
  int64_t zero_tokens() const { return zero_tokens_; }

  // log p_i of one token; one that no model gives probability only counts as such.
  void add(const double *log_probs);
  // Cost: T N^2 / 2 products. Parallel over blocks of tokens.
  Evaluation evaluate(const Pool &pool, const Vector &weights, bool derivatives) const;
  // Mean log-likelihood of each model alone.
  Vector alone() const;

 private:
  size_t n_;
  int64_t tokens_ = 0, zero_tokens_ = 0;
  std::vector<double> ratios_;  // [T, N]
  OrderedSums maxima_, logs_;
};

// Weights > 0 to begin with. The table holds at least one token.
Solution solve_linear(const Pool &pool, const GoldTable &gold, Vector weights, const Settings &settings);

}  // namespace chorus::combine
