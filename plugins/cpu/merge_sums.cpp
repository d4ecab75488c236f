// SPDX-License-Identifier: Apache-2.0
// Gram matrices and sums of magnitudes, one block: 32 virtual lanes per sum, whatever the width of a vector, joined in
// the tree of docs/numerics.md, "Reductions". A run of elements of all operands stays in the first cache level while the
// pairs pass over it. Cost: n(n+1)/2 multiply-adds per element.
#include "cpu/merge_reduce.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/merge_sums.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "cpu/merge_vector.h"

HWY_BEFORE_NAMESPACE();
namespace chorus::cpu {
namespace HWY_NAMESPACE {

// Operand i of [at, at + count) as f64; +0 up to a whole number of lanes. CHORUS_LANES is a multiple of every pack.
void load_operand(const SumsJob &job, int32_t i, uint64_t at, uint64_t count, double *out) {
  const F64 d;
  const uint64_t padded = (count + CHORUS_LANES - 1) / CHORUS_LANES * CHORUS_LANES;
  std::memset(out, 0, padded * sizeof(double));
  if (job.data[i] == nullptr) return;
  const size_t lanes = pack_lanes();
  const auto w = hn::Set(d, job.weights[i]);
  uint64_t e = 0;
  for (; e + lanes <= count; e += lanes) {
    Pack x = load_pack(job.dtypes[i], job.data[i], at + e);
    if (job.base != nullptr) {
      const Pack base = load_pack(job.base_dtype, job.base, at + e);
      each([&](size_t v) HWY_ATTR { x.v[v] = hn::Sub(x.v[v], base.v[v]); });
    }
    if (job.weighted) each([&](size_t v) HWY_ATTR { x.v[v] = hn::Mul(w, x.v[v]); });
    store_pack(x, out + e);
  }
  for (; e < count; ++e) {
    double x = load_f64(job.dtypes[i], job.data[i], static_cast<int64_t>(at + e));
    if (job.base != nullptr) x = x - load_f64(job.base_dtype, job.base, static_cast<int64_t>(at + e));
    out[e] = job.weighted ? job.weights[i] * x : x;
  }
}

void sum_block(const SumsJob &job, uint64_t at, uint64_t count, double *scratch, double *out) {
  const int32_t n = job.count;
  const uint64_t results = sums_of(job);
  double *lanes = scratch + static_cast<uint64_t>(n) * kSumsRun;
  std::memset(lanes, 0, results * CHORUS_LANES * sizeof(double));
  const auto operand = [&](int32_t i) { return scratch + static_cast<uint64_t>(i) * kSumsRun; };
  for (uint64_t run = 0; run < count; run += kSumsRun) {
    const uint64_t part = std::min(kSumsRun, count - run);
    const uint64_t padded = (part + CHORUS_LANES - 1) / CHORUS_LANES * CHORUS_LANES;
    for (int32_t i = 0; i < n; ++i) load_operand(job, i, at + run, part, operand(i));
    double *sum = lanes;
    for (int32_t i = 0; i < n; ++i) {
      for (int32_t j = i; j < (job.magnitudes ? i + 1 : n); ++j, sum += CHORUS_LANES) {
        if (job.magnitudes) {
          accumulate<false>(operand(i), nullptr, padded, sum);
        } else {
          accumulate<true>(operand(i), operand(j), padded, sum);
        }
      }
    }
  }
  for (uint64_t r = 0; r < results; ++r) out[r] = join_pairwise(lanes + r * CHORUS_LANES, CHORUS_LANES);
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus::cpu {

HWY_EXPORT(sum_block);

SumsFunction sums_for(const chorus_plugin_device *device) { return CHORUS_CPU_PICK(device, sum_block); }

}  // namespace chorus::cpu
#endif
