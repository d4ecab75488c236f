// SPDX-License-Identifier: Apache-2.0
// What one call of combine.rows hands to its kernel, by value: inputs, outputs, and how rows fall onto blocks.
#pragma once
#include "cuda/tensors.h"

namespace chorus::cuda {

inline constexpr int kCombineThreads = 512;
inline constexpr int kCombineWarps = kCombineThreads / 32;
inline constexpr int kModelWords = 4;  // 64-bit words a block tells the others about each model, at most

struct ModelInput {
  const void *scores;  // NULL: absent
  int64_t stride;      // elements from row to row
  int64_t n_valid;
  double weight, temperature;
  chorus_dtype dtype;
  chorus_score_kind kind;
};

struct CombineCall {
  ModelInput models[CHORUS_COMBINE_MAX_MODELS];
  int32_t n_models;
  chorus_combine_rule rule;
  int64_t n_tokens, rows;
  int32_t bits;  // of the integer weights
  Matrix weights;      // of the tensor, or data NULL
  Column temperatures;
  Column row_ids, steps;
  uint64_t seed, step;
  Matrix tokens, token_log_probs, log_probs;
  Column argmax, argmax_log_prob, sample, sample_log_prob, status;
  bool overwrites;  // the log-prob row may lie on a score row
  // A group of `group` blocks takes rows group index, + groups, …; each block a run of `chunk` tokens.
  int32_t group, groups;
  int64_t chunk;
  bool cached;           // the block keeps its scores in shared memory
  uint64_t *exchange;    // [groups, 2, group, words]
  uint32_t *arrivals;    // [groups], 0 at the start
  int32_t words;
};

}  // namespace chorus::cuda
