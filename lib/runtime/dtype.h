// SPDX-License-Identifier: Apache-2.0
// Data types: names, sizes, and conversions between f32 / f64 and the 16-bit floats, rounded to nearest even.
#pragma once
#include <bit>
#include <cstdint>
#include <string>

#include "chorus/types.h"

namespace chorus {

// "bf16", or "unknown" for a code this version does not know.
const char *dtype_name(chorus_dtype dtype);
// "code 9, 8 bits" for what has no name, else the name.
std::string describe_dtype(chorus_dtype dtype);
inline uint32_t dtype_bits(chorus_dtype dtype) { return dtype >> 8; }
inline uint32_t dtype_bytes(chorus_dtype dtype) { return dtype_bits(dtype) / 8; }
inline bool is_float(chorus_dtype dtype) {
  return dtype == CHORUS_F32 || dtype == CHORUS_BF16 || dtype == CHORUS_F16 || dtype == CHORUS_F64;
}
inline bool is_known_dtype(chorus_dtype dtype) { return std::string_view(dtype_name(dtype)) != "unknown"; }

inline float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
uint16_t f32_to_bf16(float value);
float f16_to_f32(uint16_t bits);
uint16_t f32_to_f16(float value);

// f64 -> f32 to odd: inexact results get an odd last bit, so that a second rounding to 16 bits is the only one
// (Boldo and Melquiond, 2008).
float f64_to_f32_odd(double value);
inline uint16_t f64_to_bf16(double value) { return f32_to_bf16(f64_to_f32_odd(value)); }
inline uint16_t f64_to_f16(double value) { return f32_to_f16(f64_to_f32_odd(value)); }

// Element `i` of an array of floating-point `dtype`.
double load_f64(const void *data, chorus_dtype dtype, uint64_t i);
void store_f64(void *data, chorus_dtype dtype, uint64_t i, double value);

}  // namespace chorus
