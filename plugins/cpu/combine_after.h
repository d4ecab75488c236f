// SPDX-License-Identifier: Apache-2.0
// What follows a plain mixture on the processor: temperature, top-k, top-p, min-p. All keep a prefix of the tokens ordered by
// key, so a row's result is one cut (docs/numerics.md, "After combining").
#pragma once
#include "cpu/combine_row.h"

namespace chorus::cpu {

struct After {
  double temperature, top_p, min_p;
  int64_t top_k;
};

// The cut of a row: what stays, found without sorting.
struct Cut {
  float least;   // the lowest key that stays
  int64_t last;  // among tokens of that key, the highest id that stays
  float top;     // the highest key
  bool keys_are_probs;
  int64_t count;    // ids of positive weight that stay, in slot.ids
  double share;     // their integer weight, of all
  double log_mass;  // of prepare_cut_log_probs()
  int64_t best, drawn;

  bool keeps(float key, int64_t v) const { return key > least || (key == least && v <= last); }
};

// Keys of the row into slot.keys, the cut, the best token and the one that `draw` draws. After linear_begin() or
// log_linear_begin(). Cost: a pass for the keys, one for their integer weights, and work on the tokens near the cut.
void cut_row(Row &row, const After &after, const Draw &draw, Cut &cut);

// Readies cut_log_prob(), the log-prob of a token that stays. Log-linear with a temperature: one more pass for the keys.
void prepare_cut_log_probs(Row &row, const After &after, Cut &cut);
double cut_log_prob(const Row &row, const After &after, const Cut &cut, int64_t v);

}  // namespace chorus::cpu
