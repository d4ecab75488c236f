// SPDX-License-Identifier: Apache-2.0
// merge.apply on the processor: which way a descriptor goes, and how a piece is cut among threads. The bytes are the
// reference's, for any cut.
#include "cpu/merge_apply.h"
#include "cpu/merge_stages.h"

namespace chorus::cpu {
namespace {

struct ApplyState {
  const chorus_host *host;
  Operands operands;
  chorus_merge_desc desc;  // input_dtypes is in operands
  bool staged;  // more than a weighted sum
  PlainFunction plain;
  StagedFunctions stages;
};

int32_t apply_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  const auto &d = *static_cast<const chorus_merge_desc *>(desc);
  if (check_apply(d, why, bytes) == 0 || check_accurate(d, why, bytes) == 0) return 0;
  if (d.granularity == CHORUS_PER_COLUMN)
    return refuse(why, bytes, "granularity is per column (2); supported: tensor, row (0, 1)");
  return kScore;
}

chorus_status apply_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  auto *state = make_state<ApplyState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->desc = *static_cast<const chorus_merge_desc *>(desc);
  state->operands = operands_of(state->desc);
  state->desc.input_dtypes = nullptr;
  const chorus_merge_desc &d = state->desc;
  state->staged = d.sparsify != CHORUS_SPARSIFY_NONE || d.rescale != CHORUS_RESCALE_NONE ||
                  d.consensus != CHORUS_CONSENSUS_NONE || d.combine == CHORUS_MERGE_MEAN_OF_KEPT;
  state->plain = plain_for(device);
  state->stages = staged_for(device);
  *out = state;
  return CHORUS_OK;
}

// The weighted sum of a group: inputs of nonzero weight in order, with coefficients the base as the last of them.
PlainJob plain_job(const ApplyState &state, const chorus_merge_args &args, const double *w) {
  const chorus_merge_desc &d = state.desc;
  PlainJob job{};
  for (int32_t i = 0; i < d.n_inputs; ++i) {
    job.divisor = job.divisor + w[i];
    if (w[i] != 0.0 && args.inputs[i] != nullptr) job.terms[job.count++] = {args.inputs[i], state.operands.dtypes[i], w[i]};
  }
  job.deltas = state.operands.deltas;
  job.mean = d.combine == CHORUS_MERGE_MEAN;
  job.add_base = d.add_base != 0;
  job.needs_base = job.add_base || (job.deltas && job.count > 0);
  job.base = {args.base, d.base_dtype, 0.0};
  if (d.combine == CHORUS_MERGE_COEFFICIENTS && d.has_base != 0 && w[d.n_inputs] != 0.0)
    job.terms[job.count++] = {args.base, d.base_dtype, w[d.n_inputs]};
  job.lambda = args.lambda;
  job.output_dtype = d.output_dtype;
  job.output = args.output;
  return job;
}

void run_plain(const ApplyState &state, const chorus_merge_args &args) {
  const chorus_merge_desc &d = state.desc;
  const Groups groups = groups_of(d.granularity, args);
  if (groups.count == 1) {
    const PlainJob job = plain_job(state, args, args.weights);
    parallel_for(state.host, static_cast<int64_t>((groups.size + kGrain - 1) / kGrain), [&](int64_t i) {
      const uint64_t begin = static_cast<uint64_t>(i) * kGrain;
      state.plain(job, begin, std::min(groups.size, begin + kGrain));
    });
    return;
  }
  const uint64_t stride = static_cast<uint64_t>(d.n_inputs) + (d.combine == CHORUS_MERGE_COEFFICIENTS && d.has_base != 0 ? 1 : 0);
  const uint64_t rows = std::max<uint64_t>(1, kGrain / std::max<uint64_t>(1, groups.size));
  parallel_for(state.host, static_cast<int64_t>((groups.count + rows - 1) / rows), [&](int64_t i) {
    const uint64_t first = static_cast<uint64_t>(i) * rows;
    for (uint64_t g = first; g < std::min(groups.count, first + rows); ++g)
      state.plain(plain_job(state, args, args.weights + g * stride), g * groups.size, (g + 1) * groups.size);
  });
}

// ---- Stages ----

// How a staged piece is shared, and what each task needs: a run's memory and its counters of ties.
struct StagedPlan {
  StagedPlan(const chorus_merge_desc &d, const chorus_merge_args &args)
      : groups(groups_of(d.granularity, args)),
        ranks(d.sparsify == CHORUS_SPARSIFY_RANK),
        tasks(tasks_of(groups, ranks)),
        n_inputs(d.n_inputs),
        seen_bytes(aligned(8 * 2 * static_cast<uint64_t>(d.n_inputs))),
        task_bytes(run_bytes(d.n_inputs, ranks ? groups.size : 0) + seen_bytes) {}
  RunMemory memory(const chorus_exec &exec, uint64_t task) const {
    return run_memory(static_cast<char *>(exec.workspace) + task * task_bytes + seen_bytes, n_inputs, ranks ? groups.size : 0);
  }
  uint64_t *seen(const chorus_exec &exec, uint64_t task) const {
    return reinterpret_cast<uint64_t *>(static_cast<char *>(exec.workspace) + task * task_bytes);
  }
  Groups groups;
  bool ranks;
  uint64_t tasks;
  int32_t n_inputs;
  uint64_t seen_bytes, task_bytes;
};

uint64_t apply_workspace(const void *prepared, const void *args) {
  const auto &state = *static_cast<const ApplyState *>(prepared);
  if (!state.staged) return 0;
  const StagedPlan plan(state.desc, *static_cast<const chorus_merge_args *>(args));
  return plan.tasks * plan.task_bytes;
}

// Each task's counters become the ties before it.
void count_before(const StagedPlan &plan, const chorus_exec &exec, uint64_t tasks) {
  for (uint64_t slot = 0; slot < 2 * static_cast<uint64_t>(plan.n_inputs); ++slot) {
    uint64_t before = 0;
    for (uint64_t t = 0; t < tasks; ++t) {
      const uint64_t here = plan.seen(exec, t)[slot];
      plan.seen(exec, t)[slot] = before;
      before += here;
    }
  }
}

void run_staged(const ApplyState &state, const chorus_merge_args &args, const chorus_exec &exec) {
  const chorus_merge_desc &d = state.desc;
  const StagedPlan plan(d, args);
  const StagedApply job{{&state.operands, d.sparsify, d.cut_statistic, sparsify_args(args), args.inputs, args.base,
                         state.operands.deltas || d.add_base != 0, args.begin, plan.groups.size},
                        &d,
                        &args};
  const uint64_t tasks = state.host->thread_count(state.host->self) > 1 ? plan.tasks : 1;
  for (uint64_t t = 0; t < tasks; ++t) std::fill(plan.seen(exec, t), plan.seen(exec, t) + tie_slots(job.stages), 0);
  const auto walk = [&](uint64_t task, const auto &body) {
    const RunMemory memory = plan.memory(exec, task);
    const auto weights = [&](uint64_t g) { return args.weights + (d.granularity == CHORUS_PER_ROW ? g * static_cast<uint64_t>(d.n_inputs) : 0); };
    for_runs(
        plan.groups, task, tasks,
        [&](uint64_t g) {
          if (plan.ranks) rank_group(job.stages, plan.groups.at(g, 0), weights(g), memory);
        },
        [&](Run run) {
          run.weights = weights(run.group);
          run.seen = plan.seen(exec, task);
          body(run, memory);
        });
  };
  if (tasks > 1 && counts_ties(job.stages)) {  // which ties come first is known once all before are counted
    parallel_for(state.host, static_cast<int64_t>(tasks), [&](int64_t t) {
      walk(static_cast<uint64_t>(t), [&](const Run &run, const RunMemory &m) { state.stages.count(job.stages, run, m); });
    });
    count_before(plan, exec, tasks);
  }
  parallel_for(state.host, static_cast<int64_t>(tasks), [&](int64_t t) {
    walk(static_cast<uint64_t>(t), [&](const Run &run, const RunMemory &m) { state.stages.apply(job, run, m); });
  });
}

chorus_status apply_run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot) {
  const auto &state = *static_cast<const ApplyState *>(prepared);
  const auto &args = *static_cast<const chorus_merge_args *>(args_pointer);
  if (state.staged) {
    run_staged(state, args, *exec);
  } else {
    run_plain(state, args);
  }
  return CHORUS_OK;
}

}  // namespace

const chorus_kernel kMergeApply = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                   CHORUS_OP_MERGE_APPLY,
                                   1,
                                   0,
                                   "merge_apply",
                                   apply_score,
                                   apply_prepare,
                                   apply_workspace,
                                   apply_run,
                                   free_state<ApplyState>,
                                   nullptr};

}  // namespace chorus::cpu
