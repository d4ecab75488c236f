// SPDX-License-Identifier: Apache-2.0
// f64 vectors of merges: loads from every format, and stores with one rounding to nearest even, the bits of
// plugin.hpp's store_f64. A pack is the 4 vectors that the hot loops hold at once. Included once per instruction set.
#include "cpu/hwy_compat.h"

#if defined(CHORUS_CPU_MERGE_VECTOR_H_) == defined(HWY_TARGET_TOGGLE)  // Highway's guard: once per target
#ifdef CHORUS_CPU_MERGE_VECTOR_H_
#undef CHORUS_CPU_MERGE_VECTOR_H_
#else
#define CHORUS_CPU_MERGE_VECTOR_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace chorus::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F64 = hn::ScalableTag<double>;
using Vec64 = hn::Vec<F64>;
using F32Half = hn::Rebind<float, F64>;

struct Pack {
  Vec64 v[4];
};

HWY_INLINE size_t pack_lanes() { return 4 * hn::Lanes(F64()); }

// Calls body(i) for the vectors of a pack, unrolled by the compiler.
template <class Body>
HWY_INLINE void each(const Body &body) {
  body(0);
  body(1);
  body(2);
  body(3);
}

HWY_INLINE Pack load_pack(const double *from) {
  const F64 d;
  Pack p;
  each([&](size_t i) HWY_ATTR { p.v[i] = hn::LoadU(d, from + i * hn::Lanes(d)); });
  return p;
}

HWY_INLINE void store_pack(const Pack &p, double *to) {
  const F64 d;
  each([&](size_t i) HWY_ATTR { hn::StoreU(p.v[i], d, to + i * hn::Lanes(d)); });
}

#if HWY_TARGET == HWY_SCALAR

HWY_INLINE Pack load_pack(chorus_dtype dtype, const void *data, uint64_t at) {
  Pack p;
  each([&](size_t i) { p.v[i] = hn::Set(F64(), load_f64(dtype, data, static_cast<int64_t>(at + i))); });
  return p;
}

HWY_INLINE void store_pack(const Pack &p, chorus_dtype dtype, void *data, uint64_t at) {
  each([&](size_t i) { store_f64(dtype, data, static_cast<int64_t>(at + i), hn::GetLane(p.v[i])); });
}

#else

using F32 = hn::ScalableTag<float>;  // twice the lanes of F64
using Vec32 = hn::Vec<F32>;

HWY_INLINE void widen(Vec32 x, Vec64 *low, Vec64 *high) {
  const F64 d;
  const F32Half half;
  *low = hn::PromoteTo(d, hn::LowerHalf(half, x));
  *high = hn::PromoteTo(d, hn::UpperHalf(half, x));
}

HWY_INLINE Vec32 narrow(Vec64 low, Vec64 high) {
  const F32Half half;
  return hn::Combine(F32(), hn::DemoteTo(half, high), hn::DemoteTo(half, low));
}

template <class T>
HWY_INLINE Pack load_pack(const T *from) {
  const F32 d;
  Pack p;
  widen(load_f32(d, from), &p.v[0], &p.v[1]);
  widen(load_f32(d, from + hn::Lanes(d)), &p.v[2], &p.v[3]);
  return p;
}

// Elements [at, at + pack_lanes()) of a tensor as f64, exactly.
HWY_INLINE Pack load_pack(chorus_dtype dtype, const void *data, uint64_t at) {
  switch (dtype) {
    case CHORUS_BF16: return load_pack(static_cast<const hwy::bfloat16_t *>(data) + at);
    case CHORUS_F16: return load_pack(static_cast<const hwy::float16_t *>(data) + at);
    case CHORUS_F32: return load_pack(static_cast<const float *>(data) + at);
    default: return load_pack(static_cast<const double *>(data) + at);
  }
}

// Rounded to odd (plugin.hpp, f32_to_odd): rounding that once more to a half format is rounding x itself. In lanes that
// are inexact: one bit down where f32 rounded away from zero, then the last bit set.
HWY_INLINE Vec32 narrow_to_odd(Vec64 low, Vec64 high) {
  const F64 d;
  const F32 f;
  const hn::Rebind<int32_t, F64> half;
  const hn::RebindToSigned<F32> i;
  const Vec32 nearest = narrow(low, high);
  Vec64 back_low, back_high;
  widen(nearest, &back_low, &back_high);
  const auto step = [&](Vec64 x, Vec64 back) HWY_ATTR {  // -1: rounded away from zero; 1: toward; 0: exact or NaN
    const auto a = hn::Abs(x), b = hn::Abs(back);
    const auto away = hn::IfThenElseZero(hn::Lt(a, b), hn::Set(d, -1.0));
    return hn::DemoteTo(half, hn::IfThenElse(hn::Gt(a, b), hn::Set(d, 1.0), away));
  };
  const auto steps = hn::Combine(i, step(high, back_high), step(low, back_low));
  const auto bits = hn::BitCast(i, nearest);
  const auto exact = hn::Eq(steps, hn::Zero(i));
  const auto odd = hn::Or(hn::Add(bits, hn::ShiftRight<31>(steps)), hn::Set(i, 1));
  return hn::BitCast(f, hn::IfThenElse(exact, bits, odd));
}

HWY_INLINE void store_pair(Vec64 low, Vec64 high, float *to) { hn::StoreU(narrow(low, high), F32(), to); }
HWY_INLINE void store_pair(Vec64 low, Vec64 high, hwy::float16_t *to) { store_f32(F32(), narrow_to_odd(low, high), to); }

// bf16 cuts f32 in the middle of its bits, so the two roundings differ only where f32 made a tie that was none.
HWY_INLINE void store_pair(Vec64 low, Vec64 high, hwy::bfloat16_t *to) {
  const F32 d;
  const hn::RebindToUnsigned<F32> u;
  Vec32 x = narrow(low, high);
  const auto tail = hn::And(hn::BitCast(u, x), hn::Set(u, 0xffffu));
  if (HWY_UNLIKELY(!hn::AllFalse(u, hn::Eq(tail, hn::Set(u, 0x8000u))))) x = narrow_to_odd(low, high);
  store_f32(d, x, to);
}

template <class T>
HWY_INLINE void store_pack(const Pack &p, T *to) {
  store_pair(p.v[0], p.v[1], to);
  store_pair(p.v[2], p.v[3], to + hn::Lanes(F32()));
}

HWY_INLINE void store_pack(const Pack &p, chorus_dtype dtype, void *data, uint64_t at) {
  switch (dtype) {
    case CHORUS_BF16: return store_pack(p, static_cast<hwy::bfloat16_t *>(data) + at);
    case CHORUS_F16: return store_pack(p, static_cast<hwy::float16_t *>(data) + at);
    case CHORUS_F32: return store_pack(p, static_cast<float *>(data) + at);
    default: return store_pack(p, static_cast<double *>(data) + at);
  }
}

#endif  // HWY_SCALAR

// lanes[e mod 32] += a[e] * b[e], or |a[e]| without b, for a multiple of 32 elements.
template <bool kProduct>
HWY_INLINE void accumulate(const double *a, const double *b, uint64_t count, double *lanes) {
  const size_t step = pack_lanes();
  for (size_t first = 0; first < CHORUS_LANES; first += step) {
    Pack sum = load_pack(lanes + first);
    for (uint64_t e = first; e < count; e += CHORUS_LANES) {
      const Pack x = load_pack(a + e);
      if constexpr (kProduct) {
        const Pack y = load_pack(b + e);
        each([&](size_t i) HWY_ATTR { sum.v[i] = hn::Add(sum.v[i], hn::Mul(x.v[i], y.v[i])); });
      } else {
        each([&](size_t i) HWY_ATTR { sum.v[i] = hn::Add(sum.v[i], hn::Abs(x.v[i])); });
      }
    }
    store_pack(sum, lanes + first);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
