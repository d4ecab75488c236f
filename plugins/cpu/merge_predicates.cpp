// SPDX-License-Identifier: Apache-2.0
// Runs of elements under a predicate: which operands satisfy it, their sums, their counts by key. The predicate is asked
// of keys, as the reference asks it.
#include "cpu/merge_reduce.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/merge_predicates.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "cpu/merge_run.h"

HWY_BEFORE_NAMESPACE();
namespace chorus::cpu {
namespace HWY_NAMESPACE {

// Keys of a run of values, as key_of() makes them.
HWY_INLINE void keys_of(const double *values, uint64_t count, uint32_t *keys) {
#if HWY_TARGET == HWY_SCALAR
  for (uint64_t e = 0; e < count; ++e) keys[e] = key_of(values[e]);
#else
  const F64 d;
  const F32Half half;
  const hn::RebindToUnsigned<F32Half> u;
  vectors_of(count, [&](uint64_t e) HWY_ATTR {
    const auto x = hn::DemoteTo(half, hn::Abs(hn::Load(d, values + e)));
    const auto nan = hn::RebindMask(u, hn::IsNaN(x));
    hn::StoreU(hn::IfThenElse(nan, hn::Set(u, 0x7fc00000u), hn::BitCast(u, x)), u, keys + e);
  });
#endif
}

// Of the variance one key decides for all inputs.
HWY_INLINE void keep_variance_ties(const PredicateJob &job, const Run &run, const RunMemory &m) {
  const Edge edge = edge_of(job.args->cuts[0]);
  vectors_of(run.count, [&](uint64_t e) HWY_ATTR {
    hn::Mask<F64> over, equal;
    compare(edge, variance_of(job.desc->n_inputs, m, e), &over, &equal);
    for (int32_t i = 0; i < job.desc->n_inputs; ++i) {
      double *kept = m.kept + static_cast<uint64_t>(i) * kRun + e;
      store_mask(hn::And(load_mask(kept), equal), kept);
    }
  });
}

HWY_INLINE void satisfied(const PredicateJob &job, const Run &run, const RunMemory &m) {
  const F64 d;
  const chorus_merge_reduce_desc &desc = *job.desc;
  load_operands(job.stages, run, m);
  sparsify(job.stages, run, m);
  const bool tie = desc.predicate == CHORUS_PREDICATE_TIE, over = desc.predicate == CHORUS_PREDICATE_ABOVE_EPSILON;
  if (tie && desc.sparsify == CHORUS_SPARSIFY_STATISTIC_CUT && desc.cut_statistic == CHORUS_CUT_VARIANCE)
    return keep_variance_ties(job, run, m);
  const double *weights = job.args->weights;
  if (desc.granularity != CHORUS_PER_TENSOR) weights += run.group * static_cast<uint64_t>(desc.n_inputs);
  for (int32_t i = 0; i < desc.n_inputs; ++i) {
    double *values = m.values + static_cast<uint64_t>(i) * kRun, *kept = m.kept + static_cast<uint64_t>(i) * kRun;
    if (desc.operand == CHORUS_OPERAND_WEIGHTED_DELTA) {
      const auto w = hn::Set(d, weights[i]);
      vectors_of(run.count, [&](uint64_t e) HWY_ATTR { hn::Store(hn::Mul(w, hn::Load(d, values + e)), d, values + e); });
    }
    if (!tie && !over) continue;
    const Edge edge = edge_of(tie ? job.args->cuts[i] : desc.epsilon);
    vectors_of(run.count, [&](uint64_t e) HWY_ATTR {
      hn::Mask<F64> above_edge, equal;
      compare(edge, hn::Load(d, values + e), &above_edge, &equal);
      store_mask(hn::And(load_mask(kept + e), tie ? equal : above_edge), kept + e);
    });
  }
}

// The same, and 0 where the predicate does not hold, up to a whole turn of lanes.
void load_satisfied(const PredicateJob &job, const Run &run, const RunMemory &m) {
  const F64 d;
  satisfied(job, run, m);
  const uint64_t padded = (run.count + CHORUS_LANES - 1) / CHORUS_LANES * CHORUS_LANES;
  for (int32_t i = 0; i < job.desc->n_inputs; ++i) {
    double *values = m.values + static_cast<uint64_t>(i) * kRun, *kept = m.kept + static_cast<uint64_t>(i) * kRun;
    vectors_of(run.count, [&](uint64_t e) HWY_ATTR {
      hn::Store(hn::IfThenElseZero(load_mask(kept + e), hn::Load(d, values + e)), d, values + e);
    });
    std::fill(values + run.count, values + padded, 0.0);
  }
  std::fill(m.base + (job.stages.needs_base ? run.count : 0), m.base + padded, 0.0);
}

void accumulate_run(const PredicateJob &job, uint64_t count, const RunMemory &m, double *lanes) {
  const int32_t n = gram_operands(*job.desc);
  const uint64_t padded = (count + CHORUS_LANES - 1) / CHORUS_LANES * CHORUS_LANES;
  const auto operand = [&](int32_t i) { return i == job.desc->n_inputs ? m.base : m.values + static_cast<uint64_t>(i) * kRun; };
  if (job.desc->statistic == CHORUS_STATISTIC_SUM) {
    for (int32_t i = 0; i < job.desc->n_inputs; ++i, lanes += CHORUS_LANES) accumulate<false>(operand(i), nullptr, padded, lanes);
    return;
  }
  for (int32_t i = 0; i < n; ++i) {
    for (int32_t j = i; j < n; ++j, lanes += CHORUS_LANES) accumulate<true>(operand(i), operand(j), padded, lanes);
  }
}

// ---- Counts ----

HWY_INLINE bool is_kept(const double *kept, uint64_t e) { return std::bit_cast<uint64_t>(kept[e]) != 0; }

void count_keys(const PredicateJob &job, uint32_t prefix, const uint32_t *keys, const double *kept, uint64_t count, uint32_t *bins) {
  const bool prefixed = job.desc->predicate == CHORUS_PREDICATE_PREFIX && job.args->prefix_bits != 0;
  const uint32_t bits = job.args->prefix_bits;
  for (uint64_t e = 0; e < count; ++e) {
    if (!is_kept(kept, e) || (prefixed && keys[e] >> (31 - bits) != prefix)) continue;
    ++bins[bin_of(keys[e], bits)];
  }
}

// Elements that nobody satisfies, most of them with ties, are passed by a vector at a time.
void count_sharers(int32_t n, const Run &run, const RunMemory &m, uint64_t *counts) {
  const F64 d;
  vectors_of(run.count, [&](uint64_t first) HWY_ATTR {
    auto any = load_mask(m.kept + first);
    for (int32_t i = 1; i < n; ++i) any = hn::Or(any, load_mask(m.kept + static_cast<uint64_t>(i) * kRun + first));
    if (hn::AllFalse(d, any)) return;
    for (uint64_t e = first; e < first + hn::Lanes(d); ++e) {
      int32_t sharers = 0;
      for (int32_t i = 0; i < n; ++i) sharers += is_kept(m.kept + static_cast<uint64_t>(i) * kRun, e);
      for (int32_t i = 0; i < n; ++i) {
        if (is_kept(m.kept + static_cast<uint64_t>(i) * kRun, e)) ++counts[int64_t{i} * n + (sharers - 1)];
      }
    }
  });
}

void count_run(const PredicateJob &job, const Run &run, const CountMemory &m) {
  const F64 d;
  const chorus_merge_reduce_desc &desc = *job.desc;
  satisfied(job, run, m.run);
  if (desc.statistic == CHORUS_STATISTIC_COUNT) return count_sharers(desc.n_inputs, run, m.run, m.counts);
  const uint32_t *prefixes = job.args->prefixes;
  if (desc.statistic == CHORUS_STATISTIC_HISTOGRAM) {
    for (int32_t i = 0; i < desc.n_inputs; ++i) {
      if (job.stages.inputs[i] == nullptr) continue;
      keys_of(m.run.values + static_cast<uint64_t>(i) * kRun, run.count, m.run.words);
      count_keys(job, prefixes != nullptr ? prefixes[i] : 0, m.run.words, m.run.kept + static_cast<uint64_t>(i) * kRun, run.count,
                 m.bins + uint64_t{65536} * static_cast<uint64_t>(i));
    }
    return;
  }
  double *variances = m.run.scratch, *any = m.run.scratch + kRun;
  vectors_of(run.count, [&](uint64_t e) HWY_ATTR {
    auto someone = load_mask(m.run.kept + e);
    for (int32_t i = 1; i < desc.n_inputs; ++i) someone = hn::Or(someone, load_mask(m.run.kept + static_cast<uint64_t>(i) * kRun + e));
    hn::Store(variance_of(desc.n_inputs, m.run, e), d, variances + e);
    store_mask(someone, any + e);
  });
  keys_of(variances, run.count, m.run.words);
  count_keys(job, prefixes != nullptr ? prefixes[0] : 0, m.run.words, any, run.count, m.bins);
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus::cpu {

HWY_EXPORT(load_satisfied);
HWY_EXPORT(count_run);
HWY_EXPORT(accumulate_run);

PredicateFunctions predicate_for(const chorus_plugin_device *device) {
  return {CHORUS_CPU_PICK(device, load_satisfied), CHORUS_CPU_PICK(device, count_run), CHORUS_CPU_PICK(device, accumulate_run)};
}

}  // namespace chorus::cpu
#endif
