// SPDX-License-Identifier: Apache-2.0
// The vector loops of combine.rows over a block of scores, one version per instruction set. Cost per token is said in
// vector operations; the row's logic, which is scalar, is combine_row.h.
#pragma once
#include "chorus/plugin_combine.hpp"
#include "cpu/backend.h"

namespace chorus::cpu {

// Scores of one model in a block: raw, or effective scores in f32 (combine_row.h). -inf: not in the support.
struct Scores {
  const void *data;
  chorus_dtype dtype;  // f32, f16, bf16
};

// Largest number of tokens of a call, and the piece of them that has a sum of its own.
inline constexpr int64_t kBlock = CHORUS_BLOCK;
inline constexpr int64_t kPiece = 512;

// A term that is surely within the clamp, rounding included.
inline constexpr float kSafeTerm = 0x1p120f;

// What a model adds to the key of a token: clamp(coefficient * (score - shift)), or `missing`.
struct Term {
  float shift, coefficient, missing = 0.0f;
};

struct BlockOps {
  // Highest and lowest raw score; NaN in both where one is NaN. 3 operations.
  void (*scan)(Scores, int64_t n, float *highest, float *lowest);
  // Lowest score above -inf; +inf where there is none. 4 operations.
  float (*lowest_finite)(Scores, int64_t n);
  // log(p) of probabilities, the exact one; p = 0 gives -inf. 35 operations.
  void (*log_of_probs)(Scores, int64_t n, float *out);
  // keys[v] = 0 + term or keys[v] + term, in f32; where `plain`, all scores are finite and no term needs a clamp. 6 or 10.
  void (*add_terms)(Scores, int64_t n, Term, bool plain, bool first, float *keys);
  float (*highest)(const float *keys, int64_t n);
  // sums[p] = sum over piece p of floor(2^bits exp(coefficient * (score - shift) - top)), whose terms stay within the
  // clamp and whose exponents are never positive. 36 operations.
  void (*weights)(Scores, int64_t n, Term, float top, int bits, uint64_t *sums);
  // sums[p] = sum over piece p of floor(2^bits (p scale)), the product rounded and at most 1 + 2^-23. 8 operations.
  void (*scaled_weights)(const float *p, int64_t n, float scale, int bits, uint64_t *sums);
  // Writes `first` + the places of keys >= least to `ids`, which has room for a whole vector more; their number. 3.
  int64_t (*at_least)(const float *keys, int64_t n, float least, int32_t first, int32_t *ids);
  // p[v] = 0 + factor * exp(coefficient * score - top) or p[v] + that. 31 operations.
  void (*add_probs)(Scores, int64_t n, float coefficient, float top, float factor, bool first, float *p);
  // One more component a = constant + coefficient * (score - shift) of log sum exp(a), held as top + log(sum). 40.
  void (*add_component)(Scores, int64_t n, Term, float constant, bool first, float *top, float *sum);
  // out[v] = top + log(sum). 40.
  void (*store_components)(const float *top, const float *sum, int64_t n, chorus_dtype, void *out);
  // out[v] = keys[v] - top - log_sum. 6.
  void (*store_keys)(const float *keys, int64_t n, float top, float log_sum, chorus_dtype, void *out);
};

// For the instruction set of `device`.
BlockOps block_ops(const chorus_plugin_device *device);

}  // namespace chorus::cpu
