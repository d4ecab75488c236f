// SPDX-License-Identifier: Apache-2.0
// route.topk on the processor: what the vector code of one row gets, and its scratch.
#pragma once
#include "chorus/plugin_route.hpp"
#include "cpu/backend.h"

namespace chorus::cpu {

// A row is padded to whole vectors of every instruction set, and to whole turns of the 32 virtual lanes.
inline constexpr int32_t kRowPadding = 64;
inline int32_t padded_experts(int32_t n_experts) { return (n_experts + kRowPadding - 1) / kRowPadding * kRowPadding; }

// Scratch of one thread, in floats or int32: three rows and one of order keys.
struct RowScratch {
  float *logits;  // after the temperature
  float *scores;
  float *values;  // what decides: logits or scores, plus bias
  int32_t *keys;  // of values, as integers that order alike
};
inline uint64_t scratch_bytes(int32_t n_experts) { return aligned(4 * 4 * static_cast<uint64_t>(padded_experts(n_experts))); }

struct RowJob {
  const chorus_route_desc *desc;
  bool ranks_logits;
  const float *bias;  // [E], contiguous, or NULL
};

// Routes one row: k ids best first, and their weights before `scale`.
using RowFunction = void (*)(const RowJob &job, const void *logits, const RowScratch &scratch, int32_t *ids, float *weights);
RowFunction row_for(const chorus_plugin_device *device);

}  // namespace chorus::cpu
