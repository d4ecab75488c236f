// SPDX-License-Identifier: Apache-2.0
// The two halves of `chorus combine`: what was asked for, and what a run over all rows gives.
#pragma once
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "combine_settings.h"
#include "rows_file.h"

namespace chorus_cli {

struct CombineArguments {
  Common common;
  std::vector<std::string> models;  // NAME=FILE or FILE
  std::string weights, temperatures, valid, rule = "linear", kind = "logits", device = "auto";
  std::string tensor, targets, targets_tensor, output, report;
  bool rows = false, replace = false;
  CombineSettings settings;
};

// A model of the mixture. With weight 0 its file is never opened.
struct CombineModel {
  std::string name, path;
  double weight = 1, temperature = 1;
  int64_t n_valid = 0;
  ModelSettings filter;
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

// ---- The pieces, for other commands and for the report ----

using Combiner = Owned<chorus_combiner, chorus_combiner_destroy>;

// A mixture of `models`; a model alone is the linear mixture of itself, whatever its weight.
struct Wanted {
  std::vector<CombineModel *> models;
  bool alone = false;
  int64_t vocabulary = 1, max_rows = 1;
  uint32_t outputs = 0;
};

// Outputs of one combiner for a block of rows; an empty vector is not computed.
struct Outputs {
  std::vector<float> token_log_probs, log_probs;
  std::vector<int32_t> argmax, status;
};

Combiner new_combiner(const Context &context, const CombineArguments &arguments, const Wanted &wanted);
// The rows in the models' blocks; `weights`: instead of the models' own, one per model that is read.
void run_block(const Combiner &combiner, const std::vector<CombineModel *> &models, int64_t count,
               std::vector<int64_t> *targets, Outputs *outputs, std::vector<float> *weights = nullptr);
// Targets of all rows; -1 for a row to leave out. Empty when none were asked for.
std::vector<int64_t> read_targets(const Context &context, const CombineArguments &arguments, int64_t rows, int64_t vocabulary);
// Rows of a block, so that all models together stay within a memory of some 64 MiB.
int64_t rows_of_block(const std::vector<CombineModel *> &models);

}  // namespace chorus_cli
