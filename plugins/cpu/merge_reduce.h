// SPDX-License-Identifier: Apache-2.0
// merge.reduce on the processor: the job that vector code gets, a block of operands at a time.
#pragma once
#include "chorus/plugin_merge.hpp"
#include "cpu/backend.h"

namespace chorus::cpu {

struct ReduceState;

// Where the operands of a Gram (or of sums of magnitudes) come from: NULL data is zeros.
struct SumsJob {
  const void *data[CHORUS_MERGE_MAX_INPUTS + 1];
  chorus_dtype dtypes[CHORUS_MERGE_MAX_INPUTS + 1];
  double weights[CHORUS_MERGE_MAX_INPUTS + 1];  // of weighted deltas; else 1
  int32_t count;
  const void *base;  // what deltas subtract, or NULL
  chorus_dtype base_dtype;
  bool magnitudes, weighted;
};
inline uint64_t sums_of(const SumsJob &job) {
  const auto n = static_cast<uint64_t>(job.count);
  return job.magnitudes ? n : n * (n + 1) / 2;
}

// The sums of one block, elements [at, at + count), count <= CHORUS_BLOCK. `scratch`: kSumsScratch of it.
using SumsFunction = void (*)(const SumsJob &job, uint64_t at, uint64_t count, double *scratch, double *out);
SumsFunction sums_for(const chorus_plugin_device *device);

// Elements of operands that are converted at once, so that they stay in the first cache level.
inline constexpr uint64_t kSumsRun = 256;
// Doubles of scratch: a run of each operand, and the lanes of each sum.
inline uint64_t sums_scratch(const SumsJob &job) { return static_cast<uint64_t>(job.count) * kSumsRun + sums_of(job) * CHORUS_LANES; }

}  // namespace chorus::cpu
