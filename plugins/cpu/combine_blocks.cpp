// SPDX-License-Identifier: Apache-2.0
// The vector loops of combine.rows: see combine_blocks.h. Sums are of integers and maxima are exact, so no result
// depends on the width of a vector.
#include "cpu/combine_blocks.h"

#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/combine_blocks.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "cpu/hwy_compat.h"
#include "cpu/vector_math.h"

HWY_BEFORE_NAMESPACE();
namespace chorus::cpu {
namespace HWY_NAMESPACE {
namespace {

using D = hn::ScalableTag<float>;
using DI = hn::RebindToSigned<D>;
using V = hn::Vec<D>;
using VI = hn::Vec<DI>;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLowest = std::numeric_limits<float>::lowest();

// Calls body(pointer) with the element type of `scores`.
template <class Body>
HWY_INLINE void with_type(Scores scores, const Body &body) {
  switch (scores.dtype) {
    case CHORUS_F16: return body(static_cast<const hwy::float16_t *>(scores.data));
    case CHORUS_BF16: return body(static_cast<const hwy::bfloat16_t *>(scores.data));
    default: return body(static_cast<const float *>(scores.data));
  }
}

// Lanes [i, i + Lanes) of the first n scores; those past the end are -inf.
template <class T>
HWY_INLINE V load_scores(const T *from, int64_t i, int64_t n) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  if (i + lanes <= n) return load_f32(d, from + i);
  const auto count = static_cast<size_t>(n - i);
  return hn::IfThenElse(hn::FirstN(d, count), load_f32(d, from + i, count), hn::Set(d, -kInfinity));
}

// Lanes [i, i + Lanes) of a block of keys, whose memory goes on past n to a whole vector.
HWY_INLINE V load_keys(const float *from, int64_t i) { return hn::LoadU(D(), from + i); }

template <class T>
HWY_INLINE void store_out(V x, T *to, int64_t i, int64_t n) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  if (i + lanes <= n) {
    store_f32(d, x, to + i);
  } else {
    store_f32(d, x, to + i, static_cast<size_t>(n - i));
  }
}

// ---- scan: a float's bits, with the others flipped where the sign is set, sort like the float; 16-bit formats need
// half as many vectors that way. NaNs lie beyond the infinities on both sides. ----

template <class Int>
HWY_INLINE void scan_bits(const Int *from, int64_t n, Int *highest, Int *lowest) {
  const hn::ScalableTag<Int> d;
  constexpr int kShift = sizeof(Int) * 8 - 1;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto magnitude = hn::Set(d, std::numeric_limits<Int>::max());
  const auto sortable = [&](auto bits) HWY_ATTR { return hn::Xor(bits, hn::And(hn::ShiftRight<kShift>(bits), magnitude)); };
  auto most0 = hn::Set(d, std::numeric_limits<Int>::min()), most1 = most0;
  auto least0 = magnitude, least1 = magnitude;
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const auto a = sortable(hn::LoadU(d, from + i)), b = sortable(hn::LoadU(d, from + i + lanes));
    most0 = hn::Max(most0, a);
    most1 = hn::Max(most1, b);
    least0 = hn::Min(least0, a);
    least1 = hn::Min(least1, b);
  }
  HWY_ALIGN Int most[hn::MaxLanes(d)], least[hn::MaxLanes(d)];
  hn::Store(hn::Max(most0, most1), d, most);
  hn::Store(hn::Min(least0, least1), d, least);
  for (int64_t j = 1; j < lanes; ++j) {
    most[0] = most[j] > most[0] ? most[j] : most[0];
    least[0] = least[j] < least[0] ? least[j] : least[0];
  }
  for (; i < n; ++i) {
    const auto key = static_cast<Int>(from[i] ^ ((from[i] >> kShift) & std::numeric_limits<Int>::max()));
    most[0] = key > most[0] ? key : most[0];
    least[0] = key < least[0] ? key : least[0];
  }
  *highest = most[0];
  *lowest = least[0];
}

// The float behind a sortable integer of the format.
template <class Int>
float float_of(chorus_dtype dtype, Int key) {
  const auto bits = static_cast<Int>(key ^ ((key >> (sizeof(Int) * 8 - 1)) & std::numeric_limits<Int>::max()));
  if constexpr (sizeof(Int) == 4) return std::bit_cast<float>(bits);
  return dtype == CHORUS_F16 ? f32_from_f16(static_cast<uint16_t>(bits)) : f32_from_bf16(static_cast<uint16_t>(bits));
}

template <class Int>
HWY_INLINE void scan_format(Scores scores, int64_t n, float *highest, float *lowest) {
  Int most, least;
  scan_bits(static_cast<const Int *>(scores.data), n, &most, &least);
  *highest = float_of(scores.dtype, most);
  *lowest = float_of(scores.dtype, least);
  if (is_nan(*highest)) *lowest = *highest;
  if (is_nan(*lowest)) *highest = *lowest;
}

void scan(Scores scores, int64_t n, float *highest, float *lowest) {
  if (scores.dtype == CHORUS_F32) return scan_format<int32_t>(scores, n, highest, lowest);
  scan_format<int16_t>(scores, n, highest, lowest);
}

float lowest_finite(Scores scores, int64_t n) {
  const D d;
  const V nothing = hn::Set(d, -kInfinity), none = hn::Set(d, kInfinity);
  V least = none;
  with_type(scores, [&](const auto *from) HWY_ATTR {
    for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
      const V s = load_scores(from, i, n);
      least = hn::Min(least, hn::IfThenElse(hn::Gt(s, nothing), s, none));
    }
  });
  return hn::GetLane(hn::MinOfLanes(d, least));
}

// ---- Keys ----

void log_of_probs(Scores scores, int64_t n, float *out) {
  const D d;
  with_type(scores, [&](const auto *from) HWY_ATTR {
    for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d)))
      hn::StoreU(exact_log(d, hn::Max(load_scores(from, i, n), hn::Zero(d))), d, out + i);
  });
}

template <bool kPlain, bool kFirst, class T>
HWY_INLINE void add_terms_of(const T *from, int64_t n, Term term, float *keys) {
  const D d;
  const V shift = hn::Set(d, term.shift), coefficient = hn::Set(d, term.coefficient);
  const V most = hn::Set(d, kMostTerm), missing = hn::Set(d, term.missing), nothing = hn::Set(d, -kInfinity);
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
    const V s = load_scores(from, i, n);
    V t = hn::Mul(coefficient, hn::Sub(s, shift));
    if constexpr (!kPlain) {
      t = hn::Min(hn::Max(t, hn::Neg(most)), most);
      t = hn::IfThenElse(hn::Gt(s, nothing), t, missing);
    }
    hn::StoreU(hn::Add(kFirst ? hn::Zero(d) : load_keys(keys, i), t), d, keys + i);
  }
}

void add_terms(Scores scores, int64_t n, Term term, bool plain, bool first, float *keys) {
  with_type(scores, [&](const auto *from) HWY_ATTR {
    if (plain) {
      first ? add_terms_of<true, true>(from, n, term, keys) : add_terms_of<true, false>(from, n, term, keys);
    } else {
      first ? add_terms_of<false, true>(from, n, term, keys) : add_terms_of<false, false>(from, n, term, keys);
    }
  });
}

float highest(const float *keys, int64_t n) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  V best0 = hn::Set(d, -kInfinity), best1 = best0;
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    best0 = hn::Max(best0, load_keys(keys, i));
    best1 = hn::Max(best1, load_keys(keys, i + lanes));
  }
  for (; i < n; i += lanes) best0 = hn::Max(best0, load_scores(keys, i, n));
  return hn::GetLane(hn::MaxOfLanes(d, hn::Max(best0, best1)));
}

// ---- Sums ----

// floor(2^bits e) = hi 2^23 + lo, both exact in f32: e 2^(bits - 23) is split at its point.
struct Split {
  VI hi, lo;

  HWY_INLINE void add(V e, V scale) {
    const D d;
    const V h = hn::Mul(e, scale);
    const VI whole = truncate_small(d, h);
    const V rest = hn::Sub(h, hn::ConvertTo(d, whole));
    hi = hn::Add(hi, whole);
    lo = hn::Add(lo, truncate_small(d, hn::Mul(rest, hn::Set(d, 0x1p23f))));
  }
  // The 512 terms of a piece fit: each hi is at most 2^22, each lo below 2^23.
  HWY_INLINE uint64_t sum() const {
    const auto total = [](VI v) HWY_ATTR { return static_cast<uint32_t>(hn::GetLane(hn::SumOfLanes(DI(), v))); };
    return (uint64_t{total(hi)} << 23) + total(lo);
  }
};

template <class T>
HWY_INLINE uint64_t weights_of_piece(const T *from, int64_t begin, int64_t end, Term term, float top, float scale_factor) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const V shift = hn::Set(d, term.shift), coefficient = hn::Set(d, term.coefficient), highest = hn::Set(d, top);
  const V scale = hn::Set(d, scale_factor);
  const auto e = [&](V s) HWY_ATTR {
    return exp_nonpositive(d, hn::Sub(hn::Mul(coefficient, hn::Sub(s, shift)), highest));
  };
  const VI zero = hn::Zero(DI());
  Split a{zero, zero}, b{zero, zero};
  int64_t i = begin;
  for (; i + 2 * lanes <= end; i += 2 * lanes) {
    a.add(e(load_f32(d, from + i)), scale);
    b.add(e(load_f32(d, from + i + lanes)), scale);
  }
  for (; i < end; i += lanes) a.add(e(load_scores(from, i, end)), scale);
  return a.sum() + b.sum();
}

void weights(Scores scores, int64_t n, Term term, float top, int bits, uint64_t *sums) {
  const float scale = chorus_exact_pow2(bits - 23);
  with_type(scores, [&](const auto *from) HWY_ATTR {
    for (int64_t begin = 0; begin < n; begin += kPiece)
      *sums++ = weights_of_piece(from, begin, begin + kPiece < n ? begin + kPiece : n, term, top, scale);
  });
}

void scaled_weights(const float *p, int64_t n, float scale, int bits, uint64_t *sums) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const V r = hn::Set(d, scale), whole = hn::Set(d, chorus_exact_pow2(bits - 23));
  const VI zero = hn::Zero(DI());
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    const int64_t end = begin + kPiece < n ? begin + kPiece : n;
    Split a{zero, zero};
    for (int64_t i = begin; i < end; i += lanes) {
      const V x = hn::Max(load_scores(p, i, end), hn::Zero(d));  // past the end: -inf
      a.add(hn::Mul(x, r), whole);
    }
    *sums++ = a.sum();
  }
}

int64_t at_least(const float *keys, int64_t n, float least, int32_t first, int32_t *ids) {
  const D d;
  const DI di;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const V from = hn::Set(d, least);
  int64_t count = 0;
  for (int64_t i = 0; i < n; i += lanes) {
    const auto is_in = hn::Ge(load_scores(keys, i, n), from);
    if (hn::AllFalse(d, is_in)) continue;
    const VI places = hn::Iota(di, first + static_cast<int32_t>(i));
    count += static_cast<int64_t>(hn::CompressStore(places, hn::RebindMask(di, is_in), di, ids + count));
  }
  return count;
}

void add_probs(Scores scores, int64_t n, float coefficient, float top, float factor, bool first, float *p) {
  const D d;
  const V c = hn::Set(d, coefficient), highest = hn::Set(d, top), f = hn::Set(d, factor);
  with_type(scores, [&](const auto *from) HWY_ATTR {
    for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
      const V e = exp_nonpositive(d, hn::Sub(hn::Mul(c, load_scores(from, i, n)), highest));
      hn::StoreU(hn::Add(first ? hn::Zero(d) : load_keys(p, i), hn::Mul(f, e)), d, p + i);
    }
  });
}

// ---- Log-prob rows ----

// A token that no component has keeps `top` at the lowest float. Subtracting from it never gives NaN.
template <bool kFirst, class T>
HWY_INLINE void add_component_of(const T *from, int64_t n, Term term, float constant, float *top, float *sum) {
  const D d;
  const V shift = hn::Set(d, term.shift), coefficient = hn::Set(d, term.coefficient), a0 = hn::Set(d, constant);
  const V lowest = hn::Set(d, kLowest), one = hn::Set(d, 1.0f);
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
    const V scaled = hn::Mul(coefficient, hn::Sub(load_scores(from, i, n), shift));
    const V a = hn::Max(hn::Add(a0, scaled), lowest);
    if constexpr (kFirst) {
      hn::StoreU(a, d, top + i);
      hn::StoreU(one, d, sum + i);
    } else {
      const V old_top = load_keys(top, i), old_sum = load_keys(sum, i);
      const V difference = hn::Sub(a, old_top);
      const V e = exp_nonpositive(d, hn::Neg(hn::Abs(difference)));
      const auto is_higher = hn::Gt(difference, hn::Zero(d));
      hn::StoreU(hn::Max(a, old_top), d, top + i);
      hn::StoreU(hn::IfThenElse(is_higher, hn::Add(hn::Mul(old_sum, e), one), hn::Add(old_sum, e)), d, sum + i);
    }
  }
}

void add_component(Scores scores, int64_t n, Term term, float constant, bool first, float *top, float *sum) {
  with_type(scores, [&](const auto *from) HWY_ATTR {
    first ? add_component_of<true>(from, n, term, constant, top, sum)
          : add_component_of<false>(from, n, term, constant, top, sum);
  });
}

// What rounds to -0, or lies above 0 by rounding, is +0.
template <class Out, class Value>
HWY_INLINE void store_log_probs(int64_t n, Out *out, float nothing, const Value &value) {
  const D d;
  const V least = hn::Set(d, -nothing);
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
    const V x = value(i);
    store_out(hn::IfThenElse(hn::Ge(x, least), hn::Zero(d), x), out, i, n);
  }
}

// Calls store_log_probs() with the type of the output and half its smallest number.
template <class Value>
HWY_INLINE void store_as(chorus_dtype dtype, void *out, int64_t n, const Value &value) {
  switch (dtype) {
    case CHORUS_F16: return store_log_probs(n, static_cast<hwy::float16_t *>(out), 0x1p-25f, value);
    case CHORUS_BF16: return store_log_probs(n, static_cast<hwy::bfloat16_t *>(out), 0x1p-134f, value);
    default: return store_log_probs(n, static_cast<float *>(out), 0.0f, value);
  }
}

void store_components(const float *top, const float *sum, int64_t n, chorus_dtype dtype, void *out) {
  const D d;
  store_as(dtype, out, n, [&](int64_t i) HWY_ATTR {
    const V t = load_keys(top, i);
    const V x = hn::Add(t, exact_log(d, load_keys(sum, i)));
    return hn::IfThenElse(hn::Eq(t, hn::Set(d, kLowest)), hn::Set(d, -kInfinity), x);
  });
}

void store_keys(const float *keys, int64_t n, float top, float log_sum, chorus_dtype dtype, void *out) {
  const D d;
  const V highest = hn::Set(d, top), rest = hn::Set(d, log_sum);
  store_as(dtype, out, n, [&](int64_t i) HWY_ATTR { return hn::Sub(hn::Sub(load_scores(keys, i, n), highest), rest); });
}

}  // namespace

BlockOps block_ops_of_target() {
  return {scan, lowest_finite, log_of_probs, add_terms, highest, weights, scaled_weights, at_least,
          add_probs, add_component, store_components, store_keys};
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus::cpu {

HWY_EXPORT(block_ops_of_target);

BlockOps block_ops(const chorus_plugin_device *device) { return CHORUS_CPU_PICK(device, block_ops_of_target)(); }

}  // namespace chorus::cpu
#endif  // HWY_ONCE
