// SPDX-License-Identifier: Apache-2.0
// exact_math.h lane by lane: the same operations in the same order, so the same bits on every instruction set.
// Included once per instruction set, after hwy/highway.h.
#include "chorus/exact_math.h"
#include "hwy/highway.h"

#if defined(CHORUS_CPU_VECTOR_MATH_H_) == defined(HWY_TARGET_TOGGLE)  // Highway's guard: once per target
#ifdef CHORUS_CPU_VECTOR_MATH_H_
#undef CHORUS_CPU_VECTOR_MATH_H_
#else
#define CHORUS_CPU_VECTOR_MATH_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace chorus::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// chorus_exact_exp up to its scaling: e^x = fraction * 2^n, where the low bits of `shifted` are n in two's complement.
template <class D>
struct ExpParts {
  hn::Vec<D> fraction, shifted;

  // Both at once, for x >= -86: the bits of `shifted`, moved into the exponent, are a factor 2^n.
  HWY_INLINE hn::Vec<D> scaled(D d) const {
    const hn::RebindToSigned<D> di;
    return hn::BitCast(d, hn::Add(hn::BitCast(di, fraction), hn::ShiftLeft<23>(hn::BitCast(di, shifted))));
  }
};

template <class D>
HWY_INLINE ExpParts<D> exp_parts(D d, hn::Vec<D> x) {
  const auto shifted = hn::Add(hn::Mul(x, hn::Set(d, CHORUS_EXP_LOG2E)), hn::Set(d, CHORUS_EXP_ROUND));
  const auto n = hn::Sub(shifted, hn::Set(d, CHORUS_EXP_ROUND));
  auto r = hn::Sub(x, hn::Mul(n, hn::Set(d, CHORUS_EXP_LN2_HI)));
  r = hn::Sub(r, hn::Mul(n, hn::Set(d, CHORUS_EXP_LN2_LO)));
  const auto r2 = hn::Mul(r, r);
  auto p = hn::Add(hn::Mul(hn::Set(d, CHORUS_EXP_P0), r), hn::Set(d, CHORUS_EXP_P1));
  p = hn::Add(hn::Mul(p, r), hn::Set(d, CHORUS_EXP_P2));
  p = hn::Add(hn::Mul(p, r), hn::Set(d, CHORUS_EXP_P3));
  p = hn::Add(hn::Mul(p, r), hn::Set(d, CHORUS_EXP_P4));
  p = hn::Add(hn::Mul(p, r), hn::Set(d, CHORUS_EXP_P5));
  return {hn::Add(hn::Add(hn::Mul(p, r2), r), hn::Set(d, 1.0f)), shifted};
}

// chorus_exact_exp(x) for -86 <= x <= 0: there one exact scaling by 2^n replaces its two. Below, and for NaN, e^-86, which
// is nothing beside a term of 1: 2^-124.
template <class D>
HWY_INLINE hn::Vec<D> exp_nonpositive(D d, hn::Vec<D> x) {
  return exp_parts(d, hn::Max(x, hn::Set(d, -86.0f))).scaled(d);  // x86 gives the second operand when the first is NaN
}

// chorus_exact_log(x) for x >= 0, infinity included.
template <class D>
HWY_INLINE hn::Vec<D> exact_log(D d, hn::Vec<D> x) {
  const hn::RebindToSigned<D> di;
  const auto infinity = hn::BitCast(d, hn::Set(di, 0x7f800000));
  const auto is_small = hn::Lt(x, hn::Set(d, 0x1p-126f));  // subnormal: scaled up by 2^23 first
  const auto scaled = hn::IfThenElse(is_small, hn::Mul(x, hn::Set(d, 8388608.0f)), x);
  const auto bits = hn::BitCast(di, scaled);
  auto e = hn::Sub(hn::ShiftRight<23>(bits), hn::Set(di, 126));
  e = hn::Add(e, hn::IfThenElseZero(hn::RebindMask(di, is_small), hn::Set(di, -23)));
  const auto fraction = hn::Or(hn::And(bits, hn::Set(di, 0x007fffff)), hn::Set(di, 0x3f000000));
  auto m = hn::BitCast(d, fraction);  // [0.5, 1)
  const auto is_low = hn::Lt(m, hn::Set(d, CHORUS_LOG_SQRT_HALF));
  e = hn::Add(e, hn::IfThenElseZero(hn::RebindMask(di, is_low), hn::Set(di, -1)));
  m = hn::IfThenElse(is_low, hn::Add(m, m), m);
  m = hn::Sub(m, hn::Set(d, 1.0f));
  const auto n = hn::ConvertTo(d, e);
  const auto z = hn::Mul(m, m);
  auto y = hn::Add(hn::Mul(hn::Set(d, CHORUS_LOG_P0), m), hn::Set(d, CHORUS_LOG_P1));
  y = hn::Add(hn::Mul(y, m), hn::Set(d, CHORUS_LOG_P2));
  y = hn::Add(hn::Mul(y, m), hn::Set(d, CHORUS_LOG_P3));
  y = hn::Add(hn::Mul(y, m), hn::Set(d, CHORUS_LOG_P4));
  y = hn::Add(hn::Mul(y, m), hn::Set(d, CHORUS_LOG_P5));
  y = hn::Add(hn::Mul(y, m), hn::Set(d, CHORUS_LOG_P6));
  y = hn::Add(hn::Mul(y, m), hn::Set(d, CHORUS_LOG_P7));
  y = hn::Add(hn::Mul(y, m), hn::Set(d, CHORUS_LOG_P8));
  y = hn::Mul(hn::Mul(y, m), z);
  y = hn::Sub(hn::Add(y, hn::Mul(n, hn::Set(d, CHORUS_EXP_LN2_LO))), hn::Mul(hn::Set(d, 0.5f), z));
  auto log = hn::Add(hn::Add(m, y), hn::Mul(n, hn::Set(d, CHORUS_EXP_LN2_HI)));
  log = hn::IfThenElse(hn::Eq(x, hn::Zero(d)), hn::Neg(infinity), log);
  return hn::IfThenElse(hn::Eq(x, infinity), infinity, log);
}

// x toward zero, for |x| < 2^31: without the repair of overflow that ConvertTo adds.
template <class D, class DI = hn::RebindToSigned<D>>
HWY_INLINE hn::Vec<DI> truncate_small(D, hn::Vec<D> x) {
#if HWY_TARGET == HWY_AVX3
  return hn::Vec<DI>{_mm512_cvttps_epi32(x.raw)};
#elif HWY_TARGET == HWY_AVX2
  return hn::Vec<DI>{_mm256_cvttps_epi32(x.raw)};
#elif HWY_TARGET == HWY_SSE4
  return hn::Vec<DI>{_mm_cvttps_epi32(x.raw)};
#else
  return hn::ConvertTo(DI(), x);
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
