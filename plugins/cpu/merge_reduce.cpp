// SPDX-License-Identifier: Apache-2.0
// merge.reduce on the processor: which way a statistic goes, and Gram matrices and sums of magnitudes without a predicate.
// Threads take runs of 16 blocks or rows; results join in the tree over their index, so the bits are the reference's.
#include "cpu/merge_reduce.h"

#include <algorithm>
#include <new>

namespace chorus::cpu {

struct ReduceState {
  const chorus_host *host;
  Operands operands;
  chorus_merge_reduce_desc desc;  // input_dtypes is in operands
  bool plain;  // sums over all elements
  SumsFunction sums;
  PredicateFunctions predicates;
};

namespace {

constexpr uint64_t kPiece = 16 * CHORUS_BLOCK;  // what a thread takes at once
constexpr uint64_t kMostSumTasks = 16;          // each has scratch of its own

int32_t reduce_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  const auto &d = *static_cast<const chorus_merge_reduce_desc *>(desc);
  if (check_reduce(d, why, bytes) == 0 || check_accurate(d, why, bytes) == 0) return 0;
  if (d.granularity == CHORUS_PER_COLUMN)
    return refuse(why, bytes, "granularity is per column (2); supported: tensor, row (0, 1)");
  return kScore;
}

chorus_status reduce_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  auto *state = make_state<ReduceState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->desc = *static_cast<const chorus_merge_reduce_desc *>(desc);
  state->operands = operands_of(state->desc);
  state->desc.input_dtypes = nullptr;
  const bool sums = state->desc.statistic == CHORUS_STATISTIC_GRAM || state->desc.statistic == CHORUS_STATISTIC_SUM;
  state->plain = sums && state->desc.predicate == CHORUS_PREDICATE_ALL;
  state->sums = sums_for(device);
  state->predicates = predicate_for(device);
  *out = state;
  return CHORUS_OK;
}

SumsJob sums_job(const ReduceState &state, const chorus_merge_reduce_args &args, uint64_t group) {
  const chorus_merge_reduce_desc &d = state.desc;
  SumsJob job{};
  job.magnitudes = d.statistic == CHORUS_STATISTIC_SUM;
  job.weighted = d.operand == CHORUS_OPERAND_WEIGHTED_DELTA;
  job.count = job.magnitudes ? d.n_inputs : gram_operands(d);
  const double *weights = job.weighted ? args.weights : nullptr;
  if (job.weighted && d.granularity != CHORUS_PER_TENSOR) weights += group * static_cast<uint64_t>(d.n_inputs);
  for (int32_t i = 0; i < d.n_inputs; ++i) {
    job.data[i] = args.inputs[i];
    job.dtypes[i] = state.operands.dtypes[i];
    job.weights[i] = weights != nullptr ? weights[i] : 1.0;
  }
  job.data[d.n_inputs] = args.base;
  job.dtypes[d.n_inputs] = job.base_dtype = d.base_dtype;
  job.base = state.operands.deltas ? args.base : nullptr;
  return job;
}

// How a piece is cut: `units` (runs of blocks, or rows) shared by `tasks`, each with `task_bytes` of scratch.
struct Plan {
  uint64_t units, tasks, results, task_bytes;
  bool by_rows;
};

Plan plan_of(const ReduceState &state, const chorus_merge_reduce_args &args) {
  const Groups groups = groups_of(state.desc.granularity, args);
  Plan plan{};
  plan.by_rows = state.desc.granularity == CHORUS_PER_ROW;
  plan.units = plan.by_rows ? groups.count : (groups.size + kPiece - 1) / kPiece;
  plan.tasks = std::min(kMostSumTasks, plan.units);
  SumsJob job{};
  job.magnitudes = state.desc.statistic == CHORUS_STATISTIC_SUM;
  job.count = job.magnitudes ? state.desc.n_inputs : gram_operands(state.desc);
  plan.results = sums_of(job);
  plan.task_bytes = aligned(8 * (sums_scratch(job) + plan.results)) + aligned(plan.results * sizeof(PairwiseStream<double>));
  return plan;
}

uint64_t reduce_workspace(const void *prepared, const void *args_pointer) {
  const auto &state = *static_cast<const ReduceState *>(prepared);
  const auto &args = *static_cast<const chorus_merge_reduce_args *>(args_pointer);
  if (is_row_statistic(state.desc)) return 0;
  if (!state.plain) return predicate_bytes(state.desc, args);
  const Plan plan = plan_of(state, args);
  return plan.tasks * plan.task_bytes + (plan.by_rows ? 0 : aligned(8 * plan.units * plan.results));
}

// Sums of elements [begin, end), the blocks counted from begin: out[r * stride].
void sum_run(const ReduceState &state, const SumsJob &job, uint64_t begin, uint64_t end, char *memory, double *out, uint64_t stride) {
  const uint64_t results = sums_of(job);
  auto *scratch = reinterpret_cast<double *>(memory);
  double *block = scratch + sums_scratch(job);
  auto *streams = reinterpret_cast<PairwiseStream<double> *>(memory + aligned(8 * (sums_scratch(job) + results)));
  for (uint64_t r = 0; r < results; ++r) new (streams + r) PairwiseStream<double>;
  for (uint64_t at = begin; at < end; at += CHORUS_BLOCK) {
    state.sums(job, at, std::min<uint64_t>(CHORUS_BLOCK, end - at), scratch, block);
    for (uint64_t r = 0; r < results; ++r) streams[r].add(block[r]);
  }
  for (uint64_t r = 0; r < results; ++r) out[r * stride] = streams[r].join();
}

void run_sums(const ReduceState &state, const chorus_merge_reduce_args &args, const chorus_exec &exec) {
  const Plan plan = plan_of(state, args);
  const Groups groups = groups_of(state.desc.granularity, args);
  auto *memory = static_cast<char *>(exec.workspace);
  auto *parts = reinterpret_cast<double *>(memory + plan.tasks * plan.task_bytes);  // [results, units]
  auto *statistic = static_cast<double *>(args.statistic);
  const SumsJob whole = sums_job(state, args, 0);
  parallel_for(state.host, static_cast<int64_t>(plan.tasks), [&](int64_t task) {
    const auto t = static_cast<uint64_t>(task);
    char *own = memory + t * plan.task_bytes;
    for (uint64_t u = plan.units * t / plan.tasks; u < plan.units * (t + 1) / plan.tasks; ++u) {
      if (plan.by_rows) {
        sum_run(state, sums_job(state, args, u), u * groups.size, (u + 1) * groups.size, own, statistic + u * plan.results, 1);
      } else {
        sum_run(state, whole, u * kPiece, std::min(groups.size, (u + 1) * kPiece), own, parts + u, plan.units);
      }
    }
  });
  if (plan.by_rows) return;
  for (uint64_t r = 0; r < plan.results; ++r)
    statistic[r] = join_pairwise(parts + r * plan.units, static_cast<int64_t>(plan.units));
}

chorus_status reduce_run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot slot) {
  const auto &state = *static_cast<const ReduceState *>(prepared);
  const auto &args = *static_cast<const chorus_merge_reduce_args *>(args_pointer);
  const uint64_t needed = statistic_bytes(state.desc, groups_of(state.desc.granularity, args));
  if (args.statistic_bytes < needed)
    return report(state.host, slot, CHORUS_INVALID_ARGUMENT, "statistic_bytes is %llu; statistic %d of this piece takes %llu",
                  static_cast<unsigned long long>(args.statistic_bytes), state.desc.statistic,
                  static_cast<unsigned long long>(needed));
  if (is_row_statistic(state.desc)) {
    const auto rows = static_cast<int64_t>(groups_of(CHORUS_PER_ROW, args).count);
    parallel_for(state.host, rows, [&](int64_t g) { reduce_row(state.operands, state.desc, args, static_cast<uint64_t>(g)); });
  } else if (state.plain) {
    run_sums(state, args, *exec);
  } else {
    reduce_predicate(state.host, state.predicates, state.operands, state.desc, args, *exec);
  }
  return CHORUS_OK;
}

}  // namespace

const chorus_kernel kMergeReduce = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                    CHORUS_OP_MERGE_REDUCE,
                                    1,
                                    0,
                                    "merge_reduce",
                                    reduce_score,
                                    reduce_prepare,
                                    reduce_workspace,
                                    reduce_run,
                                    free_state<ReduceState>,
                                    nullptr};

}  // namespace chorus::cpu
