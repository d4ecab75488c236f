// SPDX-License-Identifier: Apache-2.0
// The two ways merge.apply runs on the processor: plain (weighted sums, one pass in registers) and staged (sparsify,
// rescale, consensus: a cache-sized run of elements through each stage in turn).
#pragma once
#include "chorus/plugin_merge.hpp"
#include "cpu/backend.h"

namespace chorus::cpu {

// One operand with its weight.
struct Term {
  const void *data;
  chorus_dtype dtype;
  double weight;
};

// y = lambda * (sum w_i a_i [/ divisor]) [+ base], a_i = x_i [- base], for a run of neighbours.
struct PlainJob {
  Term terms[CHORUS_MERGE_MAX_INPUTS + 1];
  int32_t count;
  bool deltas, mean, add_base, needs_base;
  Term base;
  double divisor, lambda;
  chorus_dtype output_dtype;
  void *output;
};
// Elements [begin, end).
using PlainFunction = void (*)(const PlainJob &job, uint64_t begin, uint64_t end);
PlainFunction plain_for(const chorus_plugin_device *device);

}  // namespace chorus::cpu
