// SPDX-License-Identifier: Apache-2.0
// The exp and sigmoid of exact_math.h in vectors: the same operations, so the same bits, for every argument a router can
// bring. Included once per instruction set, after hwy/highway.h.
#include "chorus/exact_math.h"
#include "hwy/highway.h"
#include "cpu/vector_math.h"

#if defined(CHORUS_CPU_ROUTE_MATH_H_) == defined(HWY_TARGET_TOGGLE)  // Highway's guard: once per target
#ifdef CHORUS_CPU_ROUTE_MATH_H_
#undef CHORUS_CPU_ROUTE_MATH_H_
#else
#define CHORUS_CPU_ROUTE_MATH_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace chorus::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// e^x for x <= 0; of NaN some number. Above -86 one exact scaling by 2^n replaces the two of chorus_exact_exp.
template <class D>
HWY_INLINE hn::Vec<D> exp_of_negative(D d, hn::Vec<D> x) {
  const hn::RebindToSigned<D> di;
  const ExpParts<D> parts = exp_parts(d, x);
  const auto near = parts.scaled(d);
  const auto is_far = hn::Lt(x, hn::Set(d, -86.0f));
  if (HWY_LIKELY(hn::AllFalse(d, is_far))) return near;
  const auto k = hn::Sub(hn::BitCast(di, parts.shifted), hn::BitCast(di, hn::Set(d, CHORUS_EXP_ROUND)));
  const auto half = hn::ShiftRight<1>(hn::Add(k, hn::Set(di, 1)));  // toward zero, as k <= 0
  const auto pow2 = [&](hn::Vec<decltype(di)> e) HWY_ATTR {
    return hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(e, hn::Set(di, 127))));
  };
  const auto far = hn::Mul(hn::Mul(parts.fraction, pow2(half)), pow2(hn::Sub(k, half)));
  const auto is_zero = hn::Lt(x, hn::Set(d, CHORUS_EXP_MIN));
  return hn::IfThenElse(is_far, hn::IfThenElse(is_zero, hn::Zero(d), far), near);
}

template <class D>
HWY_INLINE hn::Vec<D> exact_sigmoid(D d, hn::Vec<D> x) {
  const auto one = hn::Set(d, 1.0f);
  const auto e = exp_of_negative(d, hn::Neg(hn::Abs(x)));
  const auto y = hn::Div(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one), hn::Add(one, e));
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
