// SPDX-License-Identifier: Apache-2.0
// One row of combine.rows: the models that count, what the scan found in them, and the questions outputs ask.
// docs/numerics.md, "Combining", fixes every operation that decides a choice. Each stage is a loop over blocks of tokens
// whose results are maxima and integers, so the row may be cut anywhere: over threads or not, the bytes are the same.
#pragma once
#include "cpu/combine_blocks.h"

namespace chorus::cpu {

// Scratch of a row in flight, part of the workspace.
struct Slot {
  float *keys;     // [V], whole vectors: log-linear keys
  float *highs;    // [N, blocks]: highest raw score
  float *lows;     // [N, blocks]: lowest
  float *tops;     // [blocks]: highest key, or probability
  uint64_t *sums;  // [pieces]: integer weights
  int32_t *ids;      // [V], whole vectors: with a cut (combine_after.h), tokens near it
  void *candidates;  // [V] of 16 bytes: likewise
};

// The static part of a run, and how to loop.
struct Run {
  const chorus_host *host;
  BlockOps ops;
  int64_t n_tokens;
  int bits;     // of the integer weights
  bool split;   // one row over all threads

  int64_t blocks() const { return (n_tokens + kBlock - 1) / kBlock; }
  int64_t size_of(int64_t block) const {
    const int64_t rest = n_tokens - block * kBlock;
    return rest < kBlock ? rest : kBlock;
  }
  // Calls body(block) for each block.
  template <typename Body>
  void for_blocks(const Body &body) const {
    if (split) return parallel_for(host, blocks(), body);
    for (int64_t b = 0; b < blocks(); ++b) body(b);
  }
};

enum class Shape {
  kRegular,   // a softmax over finite scores
  kOneHot,    // temperature 0: all mass on `top`
  kInfinite,  // the +inf tokens share the mass equally
  kEmpty,     // no token has positive probability
};

// A model that counts. Its effective scores are what the block loops see, whatever its kind, shape and length: the
// score (log p of probabilities) of a regular one, `present` for the tokens of the others, -inf for a missing token.
struct RowModel {
  // Given.
  int index;
  const void *scores;
  chorus_dtype dtype;
  chorus_score_kind kind;
  int64_t n_valid;
  double weight, temperature;  // temperature 0, or at least kLeastTemperature
  // Found by scan_models().
  Shape shape;
  float highest, lowest;   // raw
  float top_score;         // highest effective score
  int64_t top;             // of a one-hot
  int64_t infinite_count;  // of an infinite one
  bool has_missing;        // a token of the vocabulary is not in the support
  bool is_wild;            // scores, terms or factors near the ends of f32
  // Set by the steps that need them.
  float present = 0.0f;
  float coefficient;              // of the model alone: 1 / temperature; 1 where not regular
  uint64_t total;                 // integer weights of the model alone
  bool has_total = false, has_log_sum = false;
  double log_sum;                 // log sum exp((s - top_score) / temperature)
  Term term;                      // log-linear
  bool plain;                     // of the term
};

struct Row {
  const Run *run;
  Slot slot;
  chorus_combine_rule rule;
  int32_t status = CHORUS_ROW_OK;
  int count = 0;
  bool is_wild = false;  // a model is: log-probs are formed one by one in double
  RowModel models[CHORUS_COMBINE_MAX_MODELS];
  // Log-linear: of the keys in slot.keys.
  bool has_keys = false, has_key_sums = false;
  float top_key;  // with a cut also of the linear rule's
  double key_log_sum;
  // Linear.
  double log_weights[CHORUS_COMBINE_MAX_MODELS];
};

// ---- combine_model.cpp ----

// Reads the models once, drops the empty ones, and sets the status bits they cause.
void scan_models(Row &row);

// Effective scores of a block: the row's own memory where it holds them, else `scratch` [kBlock].
Scores block_scores(const Row &row, const RowModel &m, int64_t block, float *scratch);
float effective_score(const RowModel &m, int64_t v);

// The key of the model alone: coefficient * top_score, clamped.
inline float own_top(const RowModel &m) { return clamp(m.coefficient * m.top_score, kMostTerm); }

// Sum of the model's own integer weights, by piece in slot.sums. `shifted`: of exp((s - top) / T) rather than of the
// key, which is less exact where scores are far from 0.
uint64_t own_weights(Row &row, const RowModel &m, bool shifted);
uint64_t own_total(Row &row, RowModel &m);  // of the key, kept
double own_log_sum(Row &row, RowModel &m);  // kept

// f64 log-prob of token v within the model; -inf outside its support. After own_log_sum().
double own_log_prob(const RowModel &m, int64_t v);

// floor(2^bits exp(z - top)); z = -inf gives 0.
uint64_t integer_weight(float z, float top, int bits);

// The smallest token whose cumulative weight exceeds `random` mapped onto [0, total): by slot.sums to a piece, then by
// weight(v) inside it.
template <typename Weight>
int64_t pick(const Row &row, uint64_t total, uint64_t random, const Weight &weight) {
  const uint64_t r = chorus_multiply_high(random, total);
  const int64_t n = row.run->n_tokens, pieces = (n + kPiece - 1) / kPiece;
  uint64_t cumulative = 0;
  int64_t piece = 0;
  while (piece < pieces && cumulative + row.slot.sums[piece] <= r) cumulative += row.slot.sums[piece++];
  for (int64_t v = piece * kPiece; v < n; ++v) {
    cumulative += weight(v);
    if (cumulative > r) return v;
  }
  return -1;
}

// First index of `value` among n.
inline int64_t index_of(const float *from, int64_t n, float value) {
  int64_t i = 0;
  while (i < n && from[i] != value) ++i;
  return i;
}

// ---- combine_linear.cpp, combine_log_linear.cpp: one rule each, the same questions. Choices come first: log-probs may
// need other keys. ----

// After scan_models(). False: the row has no distribution; its status says why.
bool linear_begin(Row &row);
int64_t linear_argmax(Row &row);
int64_t linear_sample(Row &row, const Draw &draw);
// p of every token into slot.keys, up to a factor of the row; top_key is the highest.
void linear_fill_probs(Row &row);
void linear_prepare_log_probs(Row &row);
double linear_log_prob(const Row &row, int64_t v);
void linear_store(Row &row, chorus_dtype dtype, void *out);

bool log_linear_begin(Row &row);
int64_t log_linear_argmax(Row &row);
int64_t log_linear_sample(Row &row, const Draw &draw);
void log_linear_prepare_log_probs(Row &row);
double log_linear_log_prob(const Row &row, int64_t v);
void log_linear_store(Row &row, chorus_dtype dtype, void *out);

// ---- combine_check.cpp ----

int32_t combine_score(chorus_plugin_device *device, const void *desc, char *why, size_t why_bytes);

}  // namespace chorus::cpu
