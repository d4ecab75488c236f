// SPDX-License-Identifier: Apache-2.0
// Floating-point formats element by element: exact widening, and narrowing with one rounding to nearest even.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>

#include "chorus/types.h"

namespace chorus::reference {

inline bool is_nan(float x) { return x != x; }
inline bool is_nan(double x) { return x != x; }

inline uint64_t bytes_of(chorus_dtype dtype) { return (dtype >> 8) / 8; }

// The formats merges compute with.
inline bool is_float(chorus_dtype dtype) {
  return dtype == CHORUS_F64 || dtype == CHORUS_F32 || dtype == CHORUS_F16 || dtype == CHORUS_BF16;
}

inline float f32_from_bf16(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

inline float f32_from_f16(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const uint32_t magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude >= 0x0400u) return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
  const float subnormal = static_cast<float>(magnitude) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(subnormal));
}

// Nearest even; NaN stays NaN (quiet); beyond the largest bf16 plus half an ulp: infinity.
inline uint16_t bf16_from_f32(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (is_nan(x)) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// Nearest even; NaN stays NaN (quiet); 65520 and above: infinity.
inline uint16_t f16_from_f32(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x1ffu));
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 leaves the subnormal's bits, rounded by the hardware
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0.5f)));
  }
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return static_cast<uint16_t>(sign | (rounded - (112u << 23)) >> 13);
}

// f64 to f32 rounded to odd: of the two neighbours the one with an odd last bit. Rounding that to nearest even in a
// format with at least two bits less gives the nearest even of x itself (Boldo and Melquiond, 2008).
inline float f32_to_odd(double x) {
  const float nearest = static_cast<float>(x);
  if (is_nan(x) || static_cast<double>(nearest) == x) return nearest;
  uint32_t bits = std::bit_cast<uint32_t>(nearest);
  const double magnitude = x < 0 ? -x : x;
  const double nearest_magnitude = nearest < 0 ? -static_cast<double>(nearest) : static_cast<double>(nearest);
  if (nearest_magnitude > magnitude) --bits;  // toward zero
  return std::bit_cast<float>(bits | 1u);
}

inline float load_f32(chorus_dtype dtype, const void *data, int64_t index) {
  switch (dtype) {
    case CHORUS_F16: return f32_from_f16(static_cast<const uint16_t *>(data)[index]);
    case CHORUS_BF16: return f32_from_bf16(static_cast<const uint16_t *>(data)[index]);
    default: return static_cast<const float *>(data)[index];
  }
}

inline double load_f64(chorus_dtype dtype, const void *data, int64_t index) {
  if (dtype == CHORUS_F64) return static_cast<const double *>(data)[index];
  return static_cast<double>(load_f32(dtype, data, index));
}

// Stores with one rounding to nearest even.
inline void store_f32(chorus_dtype dtype, void *data, int64_t index, float x) {
  switch (dtype) {
    case CHORUS_F16: static_cast<uint16_t *>(data)[index] = f16_from_f32(x); break;
    case CHORUS_BF16: static_cast<uint16_t *>(data)[index] = bf16_from_f32(x); break;
    default: static_cast<float *>(data)[index] = x;
  }
}

inline void store_f64(chorus_dtype dtype, void *data, int64_t index, double x) {
  switch (dtype) {
    case CHORUS_F64: static_cast<double *>(data)[index] = x; break;
    case CHORUS_F32: static_cast<float *>(data)[index] = static_cast<float>(x); break;
    default: store_f32(dtype, data, index, f32_to_odd(x));
  }
}

}  // namespace chorus::reference
