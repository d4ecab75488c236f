// SPDX-License-Identifier: Apache-2.0
// The two shapes of sparse rows: a row of weights times x, and rows of weights added up. Both stream each kept row once;
// bound by memory: a vector of bf16 costs three instructions. Sums of a dot product are by lane, so their last bits depend on the
// instruction set; added rows keep the order of the list in every element.
#include "cpu/sparse.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/sparse_rows.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "cpu/hwy_compat.h"
HWY_BEFORE_NAMESPACE();
namespace chorus::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
constexpr D d;
constexpr int kRowsAtOnce = 4;

template <class T>
HWY_INLINE V load_weights(const T *from) {
  return load_f32(d, from);
}
HWY_INLINE V load_weights(const int8_t *from) {
  const hn::Rebind<int32_t, D> di;
  return hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(hn::Rebind<int8_t, D>(), from)));
}

template <class T>
float dot(const SparseMatrix &m, int64_t i, const float *x) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const T *w = reinterpret_cast<const T *>(m.row(i));
  V a = hn::Zero(d), b = hn::Zero(d), c = hn::Zero(d), e = hn::Zero(d);
  for (int64_t j = 0; j < m.stride; j += 4 * lanes) {
    a = hn::MulAdd(load_weights(w + j), hn::Load(d, x + j), a);
    b = hn::MulAdd(load_weights(w + j + lanes), hn::Load(d, x + j + lanes), b);
    c = hn::MulAdd(load_weights(w + j + 2 * lanes), hn::Load(d, x + j + 2 * lanes), c);
    e = hn::MulAdd(load_weights(w + j + 3 * lanes), hn::Load(d, x + j + 3 * lanes), e);
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(c, e))));
}

// y += sum of N rows, one after the other in each element.
template <int N, class T>
HWY_INLINE void add_rows_at_once(const T *const *rows, const float *factors, int64_t begin, int64_t end, float *y) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  V f[N];
  for (int r = 0; r < N; ++r) f[r] = hn::Set(d, factors[r]);
  for (int64_t c = begin; c < end; c += 2 * lanes) {
    V first = hn::Load(d, y + c), second = hn::Load(d, y + c + lanes);
    for (int r = 0; r < N; ++r) {
      first = hn::MulAdd(f[r], load_weights(rows[r] + c), first);
      second = hn::MulAdd(f[r], load_weights(rows[r] + c + lanes), second);
    }
    hn::Store(first, d, y + c);
    hn::Store(second, d, y + c + lanes);
  }
}

template <class T>
void add_rows(const AddRows &job) {
  const SparseMatrix &m = *job.matrix;
  const T *rows[kRowsAtOnce];
  float factors[kRowsAtOnce];
  int32_t j = 0;
  for (; j + kRowsAtOnce <= job.count; j += kRowsAtOnce) {
    for (int r = 0; r < kRowsAtOnce; ++r) {
      rows[r] = reinterpret_cast<const T *>(m.row(job.list[j + r]));
      factors[r] = job.values[job.list[j + r]];
      const int32_t next = j + kRowsAtOnce + r;  // rows are far apart: the processor does not guess them
      if (next < job.count) {
        const T *ahead = reinterpret_cast<const T *>(m.row(job.list[next])) + job.begin;
        for (int line = 0; line < 4; ++line) hwy::Prefetch(reinterpret_cast<const char *>(ahead) + 64 * line);
      }
    }
    add_rows_at_once<kRowsAtOnce>(rows, factors, job.begin, job.end, job.y);
  }
  for (; j < job.count; ++j) {
    rows[0] = reinterpret_cast<const T *>(m.row(job.list[j]));
    factors[0] = job.values[job.list[j]];
    add_rows_at_once<1>(rows, factors, job.begin, job.end, job.y);
  }
}

float dot_f32(const SparseMatrix &m, int64_t i, const float *x) { return dot<float>(m, i, x); }
float dot_bf16(const SparseMatrix &m, int64_t i, const float *x) { return dot<hwy::bfloat16_t>(m, i, x); }
float dot_i8(const SparseMatrix &m, int64_t i, const float *x) { return dot<int8_t>(m, i, x); }
void add_f32(const AddRows &job) { add_rows<float>(job); }
void add_bf16(const AddRows &job) { add_rows<hwy::bfloat16_t>(job); }
void add_i8(const AddRows &job) { add_rows<int8_t>(job); }

}  // namespace HWY_NAMESPACE
}  // namespace chorus::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus::cpu {

HWY_EXPORT(dot_f32);
HWY_EXPORT(dot_bf16);
HWY_EXPORT(dot_i8);
HWY_EXPORT(add_f32);
HWY_EXPORT(add_bf16);
HWY_EXPORT(add_i8);

DotFunction sparse_dot_for(const chorus_plugin_device *device, chorus_dtype dtype) {
  if (dtype == CHORUS_I8) return CHORUS_CPU_PICK(device, dot_i8);
  return dtype == CHORUS_BF16 ? CHORUS_CPU_PICK(device, dot_bf16) : CHORUS_CPU_PICK(device, dot_f32);
}

AddRowsFunction sparse_add_for(const chorus_plugin_device *device, chorus_dtype dtype) {
  if (dtype == CHORUS_I8) return CHORUS_CPU_PICK(device, add_i8);
  return dtype == CHORUS_BF16 ? CHORUS_CPU_PICK(device, add_bf16) : CHORUS_CPU_PICK(device, add_f32);
}

}  // namespace chorus::cpu
#endif
