// SPDX-License-Identifier: Apache-2.0
// The linear mixture of passes that come one after the other, and its uncertainty, in 8 bytes per row and token.
#pragma once
#include <memory>
#include <vector>

#include "chorus/diagnose.h"
#include "runtime/context.h"
#include "runtime/device.h"

namespace chorus::combine {

class Passes {
 public:
  Passes(std::shared_ptr<const Context> context, int64_t rows, int64_t n_tokens);

  void add(const chorus_tensor *scores, double weight);
  void merge(const Passes &other);
  void get(const chorus_passes_out &out) const;

 private:
  // Per row: the part of the mixture that counts so far.
  struct Row {
    double expected_entropy = 0;  // weighted mean of the entropies
    double information = 0;
  };
  // Joins distribution `p` of weight `weight` to row `row`.
  void join(int64_t row, const double *p, double weight, double expected_entropy, double information);
  const double *row_of(int64_t row) const { return &p_[static_cast<size_t>(row * n_tokens_)]; }

  std::shared_ptr<const Context> context_;
  DevicePtr host_;
  int64_t rows_, n_tokens_;
  double weight_ = 0;       // of all passes
  std::vector<double> p_;   // [rows, n_tokens], normalised
  std::vector<Row> state_;  // [rows]
};

}  // namespace chorus::combine
