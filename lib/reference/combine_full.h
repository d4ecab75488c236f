// SPDX-License-Identifier: Apache-2.0
// combine.rows with everything the descriptor offers: a table of log-probs per model in the output vocabulary, a rule over
// its columns, what follows the rule, and the outputs. Plain and dense: the oracle of faster kernels.
#pragma once
#include "reference/combine_mixture.h"

namespace chorus::reference {

// The static part of a model beyond CombineModel. Maps are copies.
struct FullModel {
  int64_t n_logits, top_k;
  double top_p, plausibility;
  bool has_bias, has_mask;
  const int64_t *map_offsets;  // NULL: identity
  const int32_t *map_ids;
  const float *map_values;  // NULL: 1
  chorus_combine_missing missing;
  int32_t unknown_id;
  double missing_log_prob;
  double log_lacking;  // log of the number of output tokens the model lacks
};

// The static part of a combination beyond CombineSetup.
struct FullSetup {
  bool has_exact_keys;  // a plain mixture without penalties: choices are f32 and integers
  bool has_after;       // something follows the rule
  uint32_t base_model;
  double order;
  int32_t trim, vote_k, n_top;
  double temperature, top_p, min_p, typical_p;
  int64_t top_k;
  bool has_penalties, has_neighbours;
  chorus_score_kind neighbours_kind;
  double neighbours_weight;
  int64_t row_size;  // longest row of scores or tokens
  FullModel models[CHORUS_COMBINE_MAX_MODELS];
};

inline constexpr int kMostTables = CHORUS_COMBINE_MAX_MODELS + 1;  // the list of neighbours is the last

// Entries of a table that are no log-probs: the model does not count for this token; its term is 0.
inline constexpr double kSkip = kCombineNaN, kNeutral = kCombineInfinity;

// A row in flight. Arrays are workspace.
struct FullRow {
  const CombineSetup *setup;
  const FullSetup *full;
  const chorus_combine_args *args;
  int64_t row;
  double *tables;   // [count, V] log-probs of the models that count
  double *own;      // [row_size] of one model, before its map
  double *values;   // [V] log of the combination, unnormalised
  float *keys;      // [V] what decides choices
  bool keys_are_probs;  // up to a factor of the row; else logarithms
  int32_t *order;   // [row_size] ids, best first
  uint8_t *kept;    // [V] tokens in the support
  uint8_t *passed;  // [row_size] a model's own filter
  Mixture mix;      // of the models as they come
  int count;        // of the tables
  int32_t index[kMostTables];  // of the model; n_models for the neighbours
  double weights[kMostTables];
  double norms[kMostTables];  // score / T - log-prob

  const double *table(int i) const { return tables + i * setup->n_tokens; }
};

// combine_tables.cpp: fills the tables of the models that count. Sets mix.status; false: the row has no distribution.
bool build_tables(FullRow &r);

// combine_rules.cpp: values from tables. A token outside the support gets -inf.
void apply_rule(FullRow &r);

// combine_after.cpp: keys, then temperature, penalties and filters on values, keys and kept; normalises values unless the
// rule gives scores. False: penalties that make no sense.
bool apply_after(FullRow &r);
int64_t choose_best(FullRow &r);
int64_t choose_by_draw(FullRow &r, const Draw &draw);

// Ids of the finite entries among n in `order`, best first, lowest id first among equals; their number.
int64_t sort_best(const double *values, int64_t n, int32_t *order);
// log sum exp over n entries, -inf ones skipped; -inf where all are.
double log_sum_exp(const double *values, int64_t n);

// combine_outputs.cpp: what is told of the combination before anything follows it, and of the final row.
void write_combination(const FullRow &r);
bool write_final(FullRow &r, int64_t best, int64_t drawn);
bool write_invalid_row(const FullRow &r, double value);

// combine_check.cpp: whether the settings make sense.
bool check_full(const chorus_combine_desc &d, char *why, size_t bytes);

}  // namespace chorus::reference
