// SPDX-License-Identifier: Apache-2.0
// merge.reduce on the processor: the job that vector code gets, a block of operands at a time.
#pragma once
#include "chorus/plugin_merge.hpp"
#include "cpu/merge_stages.h"

namespace chorus::cpu {

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

// ---- Statistics that ask a predicate, through the stages (merge_run.h) ----

struct PredicateJob {
  StageJob stages;
  const chorus_merge_reduce_desc *desc;
  const chorus_merge_reduce_args *args;
};

// Of one task: its memory, and where it counts. Histograms of a task are u32: [n or 1, 65536].
struct CountMemory {
  RunMemory run;
  uint32_t *bins;    // histograms
  uint64_t *counts;  // [n, n] of COUNT
};

struct PredicateFunctions {
  // Operands of a run, weighted; 0 and not kept where the predicate does not hold.
  void (*load)(const PredicateJob &job, const Run &run, const RunMemory &memory);
  // The same, counted.
  void (*count)(const PredicateJob &job, const Run &run, const CountMemory &memory);
  // lanes[e mod 32] of each sum += products (or magnitudes) of a loaded run that starts at a multiple of 32.
  void (*accumulate)(const PredicateJob &job, uint64_t count, const RunMemory &memory, double *lanes);
};
PredicateFunctions predicate_for(const chorus_plugin_device *device);

// How the statistics that ask a predicate are shared among tasks, and their workspace.
uint64_t predicate_bytes(const chorus_merge_reduce_desc &d, const chorus_merge_reduce_args &args);
void reduce_predicate(const chorus_host *host, const PredicateFunctions &functions, const Operands &operands,
                      const chorus_merge_reduce_desc &d, const chorus_merge_reduce_args &args, const chorus_exec &exec);

}  // namespace chorus::cpu
