// SPDX-License-Identifier: Apache-2.0
// The two halves of `chorus combine`: what was asked for, and what a run over all rows gives.
#pragma once
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "rows_file.h"

namespace chorus_cli {

struct CombineArguments {
  Common common;
  std::vector<std::string> models;  // NAME=FILE or FILE
  std::string weights, temperatures, valid, rule = "linear", kind = "logits", device = "auto";
  std::string tensor, targets, targets_tensor, output;
  bool rows = false, replace = false;
};

// A model of the mixture. With weight 0 its file is never opened.
struct CombineModel {
  std::string name, path;
  double weight = 1, temperature = 1;
  int64_t n_valid = 0;
  std::unique_ptr<RowsFile> file;
  std::vector<char> block;
};

// Sum of log-probs over the rows that have one.
struct Tally {
  double sum = 0;
  int64_t rows = 0;
  void add(double log_prob) {
    if (std::isnan(log_prob)) return;
    sum += log_prob;
    ++rows;
  }
  double mean() const { return rows == 0 ? NAN : sum / static_cast<double>(rows); }
  double perplexity() const { return std::exp(-mean()); }
};

// What became of one row. Log-probs are NaN where there is no target.
struct CombinedRow {
  int64_t row = 0, target = -1;
  int32_t argmax = -1, status = 0;
  double log_prob = NAN;
  std::vector<double> model_log_probs;  // of the models that were read, in their order
};

struct CombineResult {
  std::vector<Tally> models;  // one per model; empty for those of weight 0
  Tally mixture;
  int64_t rows = 0, bad_rows = 0;  // bad: without a distribution
  std::vector<CombinedRow> row_results;  // with --rows
};

// The constants that the arguments name; a usage error where there is none.
void check_words(const CombineArguments &arguments);
std::vector<CombineModel> open_models(const Context &context, const CombineArguments &arguments);
CombineResult run_combine(const Context &context, const CombineArguments &arguments, std::vector<CombineModel> *models);

}  // namespace chorus_cli
