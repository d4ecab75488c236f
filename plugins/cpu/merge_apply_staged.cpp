// SPDX-License-Identifier: Apache-2.0
// merge.apply through all stages, one run of elements at a time: operands and sparsify (merge_run.h), rescale, then
// consensus and combination with the sums in registers. f64 in input order, one rounding at the store.
#include "cpu/merge_stages.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/merge_apply_staged.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "cpu/merge_run.h"

HWY_BEFORE_NAMESPACE();
namespace chorus::cpu {
namespace HWY_NAMESPACE {

HWY_INLINE void rescale(const StagedApply &job, const Run &run, const RunMemory &m) {
  const F64 d;
  if (job.desc->rescale == CHORUS_RESCALE_NONE) return;
  for (int32_t i = 0; i < job.desc->n_inputs; ++i) {
    if (!is_present(job.stages, run, i)) continue;
    double *values = m.values + static_cast<uint64_t>(i) * kRun;
    const bool l1 = job.desc->rescale == CHORUS_RESCALE_L1;
    const auto factor = hn::Set(d, l1 ? job.args->rescales[i] : job.args->densities[i]);
    vectors_of(run.count, [&](uint64_t e) HWY_ATTR {
      const auto x = hn::Load(d, values + e);
      hn::Store(l1 ? hn::Mul(factor, x) : hn::Div(x, factor), d, values + e);
    });
  }
}

// Keeps what has the sign of the sum of the votes; a sum of 0 elects +, a vote of 0 has no sign.
HWY_INLINE void elect_sign(const StagedApply &job, const Run &run, const RunMemory &m) {
  const F64 d;
  const int32_t n = job.desc->n_inputs;
  const bool weighted = job.desc->operand == CHORUS_OPERAND_WEIGHTED_DELTA;
  const auto vote = [&](int32_t i, uint64_t e) HWY_ATTR {
    const auto x = hn::Load(d, m.values + static_cast<uint64_t>(i) * kRun + e);
    return weighted ? hn::Mul(hn::Set(d, run.weights[i]), x) : x;
  };
  vectors_of(run.count, [&](uint64_t e) HWY_ATTR {
    auto sum = hn::Zero(d);
    for (int32_t i = 0; i < n; ++i)
      sum = hn::Add(sum, hn::IfThenElseZero(load_mask(m.kept + static_cast<uint64_t>(i) * kRun + e), vote(i, e)));
    const auto plus = hn::Ge(sum, hn::Zero(d));
    for (int32_t i = 0; i < n; ++i) {
      double *kept = m.kept + static_cast<uint64_t>(i) * kRun + e;
      const auto v = vote(i, e);
      const auto agrees = hn::Or(hn::And(plus, hn::Gt(v, hn::Zero(d))), hn::AndNot(plus, hn::Lt(v, hn::Zero(d))));
      store_mask(hn::And(load_mask(kept), agrees), kept);
    }
  });
}

// Sums over what is kept. Adding -0 changes nothing, so it stands for what is dropped; of nothing the sum is +0.
HWY_INLINE Vec64 combined(const StagedApply &job, const Run &run, const RunMemory &m, double all, uint64_t e) {
  const F64 d;
  const chorus_merge_desc &desc = *job.desc;
  const auto zero = hn::Zero(d), one = hn::Set(d, 1.0), nothing = hn::Set(d, -0.0);
  auto sum = nothing, divisor = zero, count = zero, scale = one;
  const double *scales = job.args->unique_scales;
  for (int32_t i = 0; i < desc.n_inputs; ++i) {
    const auto kept = load_mask(m.kept + static_cast<uint64_t>(i) * kRun + e);
    const auto w = hn::Set(d, run.weights[i]);
    const auto product = hn::Mul(w, hn::Load(d, m.values + static_cast<uint64_t>(i) * kRun + e));
    sum = hn::Add(sum, hn::IfThenElse(kept, product, nothing));
    divisor = hn::Add(divisor, hn::IfThenElseZero(kept, w));
    count = hn::Add(count, hn::IfThenElseZero(kept, one));
    if (scales != nullptr) scale = hn::IfThenElse(kept, hn::Set(d, scales[i]), scale);
  }
  auto y = hn::IfThenElse(hn::Eq(count, zero), zero, sum);
  if (desc.combine == CHORUS_MERGE_MEAN) return hn::Div(y, hn::Set(d, all));
  if (desc.combine != CHORUS_MERGE_MEAN_OF_KEPT) return y;
  if (desc.divisor_floor > 0.0) {
    const auto floor = hn::Set(d, desc.divisor_floor);
    divisor = hn::IfThenElse(hn::Gt(divisor, floor), divisor, floor);
  }
  y = hn::Div(y, hn::IfThenElse(hn::Eq(divisor, zero), one, divisor));
  return scales != nullptr ? hn::IfThenElse(hn::Eq(count, one), hn::Mul(scale, y), y) : y;
}

void apply_run(const StagedApply &job, const Run &run, const RunMemory &m) {
  const F64 d;
  const chorus_merge_desc &desc = *job.desc;
  load_operands(job.stages, run, m);
  sparsify(job.stages, run, m);
  rescale(job, run, m);
  if (desc.consensus == CHORUS_CONSENSUS_SIGN) elect_sign(job, run, m);
  double all = 0.0;
  for (int32_t i = 0; i < desc.n_inputs; ++i) all = all + run.weights[i];
  double *out = m.scratch;
  vectors_of(run.count, [&](uint64_t e) HWY_ATTR {
    auto y = hn::Mul(hn::Set(d, job.args->lambda), combined(job, run, m, all, e));
    if (desc.add_base != 0) y = hn::Add(hn::Load(d, m.base + e), y);
    hn::Store(y, d, out + e);
  });
  uint64_t e = 0;
  for (; e + pack_lanes() <= run.count; e += pack_lanes())
    store_pack(load_pack(out + e), desc.output_dtype, job.args->output, run.at + e);
  for (; e < run.count; ++e) store_f64(desc.output_dtype, job.args->output, static_cast<int64_t>(run.at + e), out[e]);
}

// Cuts look at every element for their ties.
void count_ties_of(const StageJob &job, const Run &run, const RunMemory &m) {
  load_operands(job, run, m);
  sparsify(job, run, m);
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus::cpu {

HWY_EXPORT(apply_run);
HWY_EXPORT(count_ties_of);

StagedFunctions staged_for(const chorus_plugin_device *device) {
  return {CHORUS_CPU_PICK(device, apply_run), CHORUS_CPU_PICK(device, count_ties_of)};
}

}  // namespace chorus::cpu
#endif
