// SPDX-License-Identifier: Apache-2.0
// Stages of merges on the processor: a cache-sized run of elements of one group goes through them, all inputs beside each
// other. What the vector code gets, and the memory of one thread.
#pragma once
#include <algorithm>

#include "chorus/plugin_merge.hpp"
#include "cpu/backend.h"

namespace chorus::cpu {

// Elements of a run, and of its arrays: masks are doubles of all ones or all zeros.
inline constexpr uint64_t kRun = 256;

struct RunMemory {
  double *base;     // [kRun]
  double *values;   // [n, kRun]
  double *kept;     // [n, kRun]
  double *scratch;  // [2, kRun]
  uint32_t *words;  // [kRun + 8]: draws
  uint64_t *sorted; // [2, size] and
  uint32_t *ranks;  // [n, size] with ranks
};
uint64_t run_bytes(int32_t n_inputs, uint64_t rank_size);
RunMemory run_memory(void *memory, int32_t n_inputs, uint64_t rank_size);

// What reduce and apply ask of the first stages. `weights` NULL: all inputs that are there count.
struct StageJob {
  const Operands *operands;
  chorus_merge_sparsify sparsify;
  chorus_merge_cut_statistic cut_statistic;
  SparsifyArgs args;
  const void *const *inputs;
  const void *base;
  bool needs_base;
  uint64_t begin;       // index in the tensor of element 0
  uint64_t group_size;  // of ranks
};

// A run: `count` elements from `at` on, in the group whose arrays are given; `seen` counts the ties of each cut so far.
struct Run {
  uint64_t at, count, group, in_group;  // in_group: place of its first element in the group
  const double *weights;
  uint64_t *seen;
};

// How a piece is shared: whole rows where there are several groups, else runs of the one. Ranks need whole groups.
inline constexpr uint64_t kMostTasks = 16;
inline constexpr uint64_t kGrain = 16 * CHORUS_BLOCK;  // elements worth a task
inline uint64_t tasks_of(const Groups &groups, bool whole_groups) {
  const uint64_t elements = groups.count * groups.size, by_size = (elements + kGrain - 1) / kGrain;
  const uint64_t units = groups.count > 1 || whole_groups ? groups.count : by_size;
  return std::max<uint64_t>(1, std::min({kMostTasks, by_size, units}));
}

// Calls begin_group(g) and then body(run) for the runs of one task, in order; run.weights and run.seen are the caller's.
template <typename BeginGroup, typename Body>
void for_runs(const Groups &groups, uint64_t task, uint64_t tasks, const BeginGroup &begin_group, const Body &body) {
  const bool one = groups.count == 1;
  const auto cut = [&](uint64_t t) {
    if (!one) return groups.count * t / tasks;
    return t == tasks ? groups.size : groups.size / kRun * t / tasks * kRun;
  };
  const uint64_t first = one ? 0 : cut(task), last = one ? 1 : cut(task + 1);
  for (uint64_t g = first; g < last; ++g) {
    begin_group(g);
    const uint64_t begin = one ? cut(task) : 0, end = one ? cut(task + 1) : groups.size;
    for (uint64_t j = begin; j < end; j += kRun) body(Run{groups.at(g, j), std::min(kRun, end - j), g, j, nullptr, nullptr});
  }
}

// Ties of each cut among elements [begin, end): what a later thread must start from.
bool counts_ties(const StageJob &job);
inline uint64_t tie_slots(const StageJob &job) { return 2 * static_cast<uint64_t>(job.operands->n_inputs); }

// Ranks of the magnitudes of a group, for every input: the group starts at element `at`.
void rank_group(const StageJob &job, uint64_t at, const double *weights, const RunMemory &memory);

// ---- merge.apply through the stages ----

struct StagedApply {
  StageJob stages;
  const chorus_merge_desc *desc;
  const chorus_merge_args *args;
};
struct StagedFunctions {
  // Applies one run.
  void (*apply)(const StagedApply &job, const Run &run, const RunMemory &memory);
  // Adds the run's ties to run.seen, and nothing else.
  void (*count)(const StageJob &job, const Run &run, const RunMemory &memory);
};
StagedFunctions staged_for(const chorus_plugin_device *device);

}  // namespace chorus::cpu
