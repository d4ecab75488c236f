// SPDX-License-Identifier: Apache-2.0
// A fit of mixture weights: reads batches, collects what one pass over the data gives, and hands it to the iteration of its
// rule (fit_linear, fit_newton).
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "chorus/fit.h"
#include "combine/fit_linear.h"
#include "combine/fit_newton.h"
#include "runtime/context.h"
#include "runtime/device.h"

namespace chorus::combine {

class Fit {
 public:
  Fit(std::shared_ptr<const Context> context, const chorus_fit_options &options);

  void add(const chorus_fit_batch &batch);
  // Ends a pass; true when done.
  bool step();
  const double *point() const { return point_.data(); }
  // Needs a step. Pointers live until the next call.
  chorus_fit_result result();

 private:
  // Rows of one number of values per token, and which of them count.
  struct Rows {
    size_t width;
    std::vector<double> values;
    std::vector<uint8_t> counts;
  };
  // What a pass has seen.
  struct Pass {
    int64_t tokens = 0, zero_tokens = 0;
    OrderedSums sums;
  };

  void check(const chorus_fit_batch &batch) const;
  int64_t valid_tokens(const chorus_fit_batch &batch) const;
  Rows gold_rows(const chorus_fit_batch &batch) const;
  Rows gold_rows_of_scores(const chorus_fit_batch &batch) const;
  Rows gradient_rows_of_scores(const chorus_fit_batch &batch) const;
  Rows gradient_rows_of_sums(const chorus_fit_batch &batch) const;
  void add_linear(const Rows &rows, bool held_out);
  void add_log_linear(const Rows &rows, bool held_out);
  void finish_linear();
  bool step_log_linear();

  std::shared_ptr<const Context> context_;
  DevicePtr host_;
  chorus_combine_rule rule_;
  size_t n_;
  Settings settings_;
  Vector point_;
  bool done_ = false, stepped_ = false;
  Solution best_;

  GoldTable gold_, held_out_gold_;  // linear: kept
  Pass pass_, held_out_pass_;       // log-linear: of this pass
  Pass held_out_first_{0, 0, OrderedSums(0)};  // its counts in the pass before
  int64_t first_tokens_ = -1, first_zero_tokens_ = 0;
  double held_out_ = 0;  // mean log-likelihood of held-out tokens at best_
  Vector model_log_likelihoods_;
  std::optional<Newton> newton_;
};

}  // namespace chorus::combine
