// SPDX-License-Identifier: Apache-2.0
// Sums and counts under a predicate, shared among tasks: units are runs of 16 blocks, or rows; a task takes neighbours.
// Sums join in the tree over the units' index; counts add up. Ties are counted per task first where a cut asks for them.
#include <algorithm>
#include <cstring>
#include <new>

#include "cpu/merge_reduce.h"

namespace chorus::cpu {
namespace {

bool is_sum(const chorus_merge_reduce_desc &d) {
  return d.statistic == CHORUS_STATISTIC_GRAM || d.statistic == CHORUS_STATISTIC_SUM;
}

// How a piece is cut, and where each task has its memory.
struct Plan {
  Plan(const chorus_merge_reduce_desc &d, const chorus_merge_reduce_args &args)
      : groups(groups_of(d.granularity, args)), by_rows(d.granularity != CHORUS_PER_TENSOR), n(d.n_inputs) {
    const bool kept = d.predicate == CHORUS_PREDICATE_KEPT;
    rank_size = kept && d.sparsify == CHORUS_SPARSIFY_RANK ? groups.size : 0;
    units = by_rows ? groups.count : (groups.size + kGrain - 1) / kGrain;
    tasks = std::max<uint64_t>(1, std::min({is_sum(d) ? kMostTasks : 4, units, (args.count + kGrain - 1) / kGrain}));
    const auto inputs = static_cast<uint64_t>(n);
    results = d.statistic == CHORUS_STATISTIC_SUM ? inputs : gram_size(d);
    bins = d.statistic == CHORUS_STATISTIC_HISTOGRAM ? 65536 * inputs : d.statistic == CHORUS_STATISTIC_VARIANCE_HISTOGRAM ? 65536 : 0;
    seen_bytes = aligned(16 * inputs);
    run_size = run_bytes(n, rank_size);
    const uint64_t sums = aligned(8 * results * CHORUS_LANES) + aligned(results * sizeof(PairwiseStream<double>));
    own_bytes = is_sum(d) ? sums : aligned(4 * bins) + aligned(8 * inputs * inputs);
    task_bytes = seen_bytes + run_size + own_bytes;
    bytes = tasks * task_bytes + (is_sum(d) && !by_rows ? aligned(8 * units * results) : 0);
  }
  Groups groups;
  bool by_rows;
  int32_t n;
  uint64_t rank_size, units, tasks, results, bins, seen_bytes, run_size, own_bytes, task_bytes, bytes;
};

struct Reduction {
  const chorus_host *host;
  const PredicateFunctions &functions;
  const PredicateJob &job;
  const Plan &plan;
  uint64_t tasks;
  char *memory;

  char *of(uint64_t task) const { return memory + task * plan.task_bytes; }
  uint64_t *seen(uint64_t task) const { return reinterpret_cast<uint64_t *>(of(task)); }
  RunMemory run(uint64_t task) const { return run_memory(of(task) + plan.seen_bytes, plan.n, plan.rank_size); }
  char *own(uint64_t task) const { return of(task) + plan.seen_bytes + plan.run_size; }

  // Calls body(unit, run) for the runs of a unit, in order.
  template <typename Body>
  void runs_of(uint64_t task, uint64_t unit, const RunMemory &m, const Body &body) const {
    const uint64_t group = plan.by_rows ? unit : 0, first = plan.by_rows ? 0 : unit * kGrain;
    const uint64_t end = plan.by_rows ? plan.groups.size : std::min(plan.groups.size, first + kGrain);
    if (plan.rank_size != 0) rank_group(job.stages, plan.groups.at(group, 0), nullptr, m);
    for (uint64_t j = first; j < end; j += kRun)
      body(Run{plan.groups.at(group, j), std::min(kRun, end - j), group, j, nullptr, seen(task)});
  }

  template <typename Body>
  void each_task(const Body &body) const {
    parallel_for(host, static_cast<int64_t>(tasks), [&](int64_t t) {
      const auto task = static_cast<uint64_t>(t);
      for (uint64_t u = plan.units * task / tasks; u < plan.units * (task + 1) / tasks; ++u) body(task, u);
    });
  }
};

// Each task's counters become the ties before it.
void count_ties(const Reduction &r) {
  for (uint64_t t = 0; t < r.tasks; ++t) std::memset(r.seen(t), 0, r.plan.seen_bytes);
  if (r.tasks == 1 || !counts_ties(r.job.stages)) return;
  r.each_task([&](uint64_t task, uint64_t unit) {
    const RunMemory m = r.run(task);
    r.runs_of(task, unit, m, [&](const Run &run) { r.functions.load(r.job, run, m); });
  });
  for (uint64_t slot = 0; slot < tie_slots(r.job.stages); ++slot) {
    uint64_t before = 0;
    for (uint64_t t = 0; t < r.tasks; ++t) {
      const uint64_t here = r.seen(t)[slot];
      r.seen(t)[slot] = before;
      before += here;
    }
  }
}

void reduce_sums(const Reduction &r) {
  const Plan &plan = r.plan;
  auto *parts = reinterpret_cast<double *>(r.memory + plan.tasks * plan.task_bytes);  // [results, units]
  auto *statistic = static_cast<double *>(r.job.args->statistic);
  r.each_task([&](uint64_t task, uint64_t unit) {
    const RunMemory m = r.run(task);
    auto *lanes = reinterpret_cast<double *>(r.own(task));
    auto *streams = reinterpret_cast<PairwiseStream<double> *>(r.own(task) + aligned(8 * plan.results * CHORUS_LANES));
    for (uint64_t i = 0; i < plan.results; ++i) new (streams + i) PairwiseStream<double>;
    const auto close_block = [&] {
      for (uint64_t i = 0; i < plan.results; ++i) streams[i].add(join_pairwise(lanes + i * CHORUS_LANES, CHORUS_LANES));
      std::memset(lanes, 0, 8 * plan.results * CHORUS_LANES);
    };
    std::memset(lanes, 0, 8 * plan.results * CHORUS_LANES);
    const uint64_t end = plan.by_rows ? plan.groups.size : std::min(plan.groups.size, (unit + 1) * kGrain);
    r.runs_of(task, unit, m, [&](const Run &run) {
      r.functions.load(r.job, run, m);
      r.functions.accumulate(r.job, run.count, m, lanes);
      const uint64_t next = run.in_group + run.count;
      if (next % CHORUS_BLOCK == 0 || next == end) close_block();
    });
    for (uint64_t i = 0; i < plan.results; ++i) {
      const double sum = streams[i].join();
      if (plan.by_rows) {
        statistic[unit * plan.results + i] = sum;
      } else {
        parts[i * plan.units + unit] = sum;
      }
    }
  });
  if (plan.by_rows) return;
  for (uint64_t i = 0; i < plan.results; ++i)
    statistic[i] = join_pairwise(parts + i * plan.units, static_cast<int64_t>(plan.units));
}

void reduce_counts(const Reduction &r) {
  const Plan &plan = r.plan;
  const uint64_t cells = static_cast<uint64_t>(plan.n) * static_cast<uint64_t>(plan.n);
  const auto memory = [&](uint64_t t) {
    return CountMemory{r.run(t), reinterpret_cast<uint32_t *>(r.own(t)), reinterpret_cast<uint64_t *>(r.own(t) + aligned(4 * plan.bins))};
  };
  parallel_for(r.host, static_cast<int64_t>(r.tasks), [&](int64_t t) { std::memset(r.own(static_cast<uint64_t>(t)), 0, plan.own_bytes); });
  r.each_task([&](uint64_t task, uint64_t unit) {
    const CountMemory m = memory(task);
    r.runs_of(task, unit, m.run, [&](const Run &run) { r.functions.count(r.job, run, m); });
  });
  auto *statistic = static_cast<uint64_t *>(r.job.args->statistic);
  for (uint64_t i = 0; i < (plan.bins != 0 ? plan.bins : cells); ++i) {
    uint64_t sum = 0;
    for (uint64_t t = 0; t < r.tasks; ++t) sum += plan.bins != 0 ? memory(t).bins[i] : memory(t).counts[i];
    statistic[i] = sum;
  }
}

}  // namespace

uint64_t predicate_bytes(const chorus_merge_reduce_desc &d, const chorus_merge_reduce_args &args) { return Plan(d, args).bytes; }

void reduce_predicate(const chorus_host *host, const PredicateFunctions &functions, const Operands &operands,
                      const chorus_merge_reduce_desc &d, const chorus_merge_reduce_args &args, const chorus_exec &exec) {
  const Plan plan(d, args);
  const bool kept = d.predicate == CHORUS_PREDICATE_KEPT;
  const bool base = operands.deltas || (d.statistic == CHORUS_STATISTIC_GRAM && operands.has_base);
  const PredicateJob job{{&operands, kept ? d.sparsify : CHORUS_SPARSIFY_NONE, d.cut_statistic, sparsify_args(args),
                          args.inputs, args.base, base && args.base != nullptr, args.begin, plan.groups.size},
                         &d,
                         &args};
  const uint64_t tasks = host->thread_count(host->self) > 1 ? plan.tasks : 1;
  const Reduction reduction{host, functions, job, plan, tasks, static_cast<char *>(exec.workspace)};
  count_ties(reduction);
  if (is_sum(d)) return reduce_sums(reduction);
  reduce_counts(reduction);
}

}  // namespace chorus::cpu
