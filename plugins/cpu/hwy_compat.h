// SPDX-License-Identifier: Apache-2.0
// Vector loads and stores of the score and weight formats, missing or inexact in Highway 1.0.3: f16 and bf16 to f32
// exactly, f32 to f16 and bf16 with one rounding to nearest even (the bits of plugin.hpp's scalar ones), and tails
// that touch no byte past the end. Included once per instruction set, after hwy/highway.h.
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"

#if defined(CHORUS_CPU_HWY_COMPAT_H_) == defined(HWY_TARGET_TOGGLE)  // Highway's guard: once per target
#ifdef CHORUS_CPU_HWY_COMPAT_H_
#undef CHORUS_CPU_HWY_COMPAT_H_
#else
#define CHORUS_CPU_HWY_COMPAT_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace chorus::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// D is a tag of float vectors; the element types in memory are float, hwy::float16_t and hwy::bfloat16_t.
template <class D>
using Half16 = hn::Rebind<uint16_t, D>;

// ---- Bits ----

template <class D>
HWY_INLINE hn::Vec<D> f32_from_bf16_bits(D d, hn::Vec<Half16<D>> bits) {
  const hn::RebindToUnsigned<D> du;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, bits)));
}

template <class D>
HWY_INLINE hn::Vec<D> f32_from_f16_bits(D d, hn::Vec<Half16<D>> bits) {
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, D>(), bits));  // vcvtph2ps: exact
#else
  const hn::RebindToUnsigned<D> du;
  const hn::RebindToSigned<D> di;
  const auto wide = hn::PromoteTo(du, bits);
  const auto sign = hn::ShiftLeft<16>(hn::And(wide, hn::Set(du, 0x8000u)));
  const auto magnitude = hn::And(wide, hn::Set(du, 0x7fffu));
  const auto shifted = hn::ShiftLeft<13>(magnitude);
  const auto normal = hn::Add(shifted, hn::Set(du, 112u << 23));
  const auto special = hn::Or(shifted, hn::Set(du, 0x7f800000u));  // 0x7c00 << 13 lies within 0x7f800000
  const auto subnormal = hn::BitCast(du, hn::Mul(hn::ConvertTo(d, hn::BitCast(di, magnitude)), hn::Set(d, 0x1p-24f)));
  const auto signed_magnitude = hn::BitCast(di, magnitude);
  const auto is_special = hn::RebindMask(du, hn::Gt(signed_magnitude, hn::Set(di, 0x7bff)));
  const auto is_subnormal = hn::RebindMask(du, hn::Lt(signed_magnitude, hn::Set(di, 0x0400)));
  const auto finite = hn::IfThenElse(is_subnormal, subnormal, normal);
  return hn::BitCast(d, hn::Or(sign, hn::IfThenElse(is_special, special, finite)));
#endif
}

// Nearest even; NaN stays NaN; beyond the largest number plus half an ulp: infinity.
template <class D>
HWY_INLINE hn::Vec<Half16<D>> bf16_bits_from_f32(D, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> du;
  const hn::RebindToSigned<D> di;
  const auto bits = hn::BitCast(du, x);
  const auto high = hn::ShiftRight<16>(bits);
  const auto odd = hn::And(high, hn::Set(du, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffu))));
  const auto quiet = hn::Or(high, hn::Set(du, 0x40u));
  const auto is_nan = hn::RebindMask(du, hn::IsNaN(x));
  return hn::DemoteTo(Half16<D>(), hn::BitCast(di, hn::IfThenElse(is_nan, quiet, rounded)));
}

// Nearest even, subnormals included; NaN stays NaN; 65520 and above: infinity.
template <class D>
HWY_INLINE hn::Vec<Half16<D>> f16_bits_from_f32(D d, hn::Vec<D> x) {
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  (void)d;
  return hn::BitCast(Half16<D>(), hn::DemoteTo(hn::Rebind<hwy::float16_t, D>(), x));  // vcvtps2ph, nearest even
#else
  const hn::RebindToUnsigned<D> du;
  const hn::RebindToSigned<D> di;
  const auto bits = hn::BitCast(du, x);
  const auto sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 0x8000u));
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7fffffffu));
  const auto signed_magnitude = hn::BitCast(di, magnitude);
  const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 1u));
  const auto rounded = hn::Add(hn::Add(magnitude, hn::Set(du, 0xfffu)), odd);
  const auto normal = hn::ShiftRight<13>(hn::Sub(rounded, hn::Set(du, 112u << 23)));
  // Below 2^-14: adding 0.5 leaves the subnormal's bits, rounded by the hardware.
  const auto half = hn::Set(d, 0.5f);
  const auto subnormal = hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(d, magnitude), half)), hn::BitCast(du, half));
  const auto nan = hn::Or(hn::Set(du, 0x7e00u), hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 0x1ffu)));
  const auto above = [&](int32_t limit) HWY_ATTR {
    return hn::RebindMask(du, hn::Gt(signed_magnitude, hn::Set(di, limit)));
  };
  auto result = hn::IfThenElse(above(0x387fffff), normal, subnormal);
  result = hn::IfThenElse(above(0x477fefff), hn::Set(du, 0x7c00u), result);
  result = hn::IfThenElse(above(0x7f800000), nan, result);
  return hn::DemoteTo(Half16<D>(), hn::BitCast(di, hn::Or(sign, result)));
#endif
}

// ---- Whole vectors in memory, at any alignment ----

template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const float *from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const hwy::bfloat16_t *from) {
  return f32_from_bf16_bits(d, hn::LoadU(Half16<D>(), reinterpret_cast<const uint16_t *>(from)));
}
template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const hwy::float16_t *from) {
  return f32_from_f16_bits(d, hn::LoadU(Half16<D>(), reinterpret_cast<const uint16_t *>(from)));
}

template <class D>
HWY_INLINE void store_f32(D d, hn::Vec<D> x, float *to) {
  hn::StoreU(x, d, to);
}
template <class D>
HWY_INLINE void store_f32(D d, hn::Vec<D> x, hwy::bfloat16_t *to) {
  hn::StoreU(bf16_bits_from_f32(d, x), Half16<D>(), reinterpret_cast<uint16_t *>(to));
}
template <class D>
HWY_INLINE void store_f32(D d, hn::Vec<D> x, hwy::float16_t *to) {
  hn::StoreU(f16_bits_from_f32(d, x), Half16<D>(), reinterpret_cast<uint16_t *>(to));
}

// ---- Tails: the first `count` lanes, 0 <= count <= Lanes(d); no other element is read or written ----

// Lanes from `count` on are +0.
template <class D, class T>
HWY_INLINE hn::Vec<D> load_f32(D d, const T *from, size_t count) {
  HWY_ALIGN T buffer[hn::MaxLanes(d)];
  std::memset(buffer, 0, sizeof buffer);
  std::memcpy(buffer, from, count * sizeof(T));
  return load_f32(d, buffer);
}

template <class D, class T>
HWY_INLINE void store_f32(D d, hn::Vec<D> x, T *to, size_t count) {
  HWY_ALIGN T buffer[hn::MaxLanes(d)];
  store_f32(d, x, buffer);
  std::memcpy(to, buffer, count * sizeof(T));
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
