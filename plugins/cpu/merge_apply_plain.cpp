// SPDX-License-Identifier: Apache-2.0
// Weighted sums of any formats: f64 inside, multiply then add in input order, one rounding. A pack of accumulators stays
// in registers while the terms pass by, so the cost is one read of each input and one write, whatever their number.
#include "cpu/merge_apply.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/merge_apply_plain.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "cpu/merge_vector.h"

HWY_BEFORE_NAMESPACE();
namespace chorus::cpu {
namespace HWY_NAMESPACE {

// w * (x [- base]) of one term, into or onto the sum.
HWY_INLINE Pack product(const PlainJob &job, const Term &term, const Pack &base, uint64_t at) {
  Pack x = load_pack(term.dtype, term.data, at);
  const auto w = hn::Set(F64(), term.weight);
  if (job.deltas) each([&](size_t i) HWY_ATTR { x.v[i] = hn::Sub(x.v[i], base.v[i]); });
  each([&](size_t i) HWY_ATTR { x.v[i] = hn::Mul(w, x.v[i]); });
  return x;
}

HWY_INLINE Pack merged(const PlainJob &job, uint64_t at) {
  const F64 d;
  const auto zero = hn::Zero(d);
  Pack base = {{zero, zero, zero, zero}}, y = base;
  if (job.needs_base) base = load_pack(job.base.dtype, job.base.data, at);
  if (job.count > 0) y = product(job, job.terms[0], base, at);  // starts the sum: a lone -0 stays
  for (int32_t t = 1; t < job.count; ++t) {
    const Pack p = product(job, job.terms[t], base, at);
    each([&](size_t i) HWY_ATTR { y.v[i] = hn::Add(y.v[i], p.v[i]); });
  }
  if (job.mean) each([&](size_t i) HWY_ATTR { y.v[i] = hn::Div(y.v[i], hn::Set(d, job.divisor)); });
  if (job.lambda != 1.0) each([&](size_t i) HWY_ATTR { y.v[i] = hn::Mul(hn::Set(d, job.lambda), y.v[i]); });
  if (job.add_base) each([&](size_t i) HWY_ATTR { y.v[i] = hn::Add(base.v[i], y.v[i]); });
  return y;
}

// The last elements, fewer than a pack: through copies that end where the tensors do.
void merge_tail(const PlainJob &job, uint64_t begin, uint64_t count) {
  constexpr size_t kBytes = 8 * 4 * hn::MaxLanes(F64());
  HWY_ALIGN char copies[CHORUS_MERGE_MAX_INPUTS + 2][kBytes];
  HWY_ALIGN char result[kBytes];
  PlainJob tail = job;
  const auto copy = [&](Term &term, char *to) {
    const uint64_t bytes = bytes_of(term.dtype);
    std::memset(to, 0, kBytes);
    std::memcpy(to, static_cast<const char *>(term.data) + begin * bytes, count * bytes);
    term.data = to;
  };
  for (int32_t t = 0; t < job.count; ++t) copy(tail.terms[t], copies[t]);
  if (job.needs_base) copy(tail.base, copies[job.count]);
  store_pack(merged(tail, 0), job.output_dtype, result, 0);
  const uint64_t bytes = bytes_of(job.output_dtype);
  std::memcpy(static_cast<char *>(job.output) + begin * bytes, result, count * bytes);
}

void merge_plain(const PlainJob &job, uint64_t begin, uint64_t end) {
  const size_t lanes = pack_lanes();
  uint64_t at = begin;
  for (; at + lanes <= end; at += lanes) store_pack(merged(job, at), job.output_dtype, job.output, at);
  if (at < end) merge_tail(job, at, end - at);
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus::cpu {

HWY_EXPORT(merge_plain);

PlainFunction plain_for(const chorus_plugin_device *device) { return CHORUS_CPU_PICK(device, merge_plain); }

}  // namespace chorus::cpu
#endif
