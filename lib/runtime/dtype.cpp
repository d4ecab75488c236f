// SPDX-License-Identifier: Apache-2.0
// Names of data types and the scalar conversions, bit by bit.
#include "runtime/dtype.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

namespace chorus {

const char *dtype_name(chorus_dtype dtype) {
  switch (dtype) {
    case CHORUS_F64: return "f64";
    case CHORUS_F32: return "f32";
    case CHORUS_F16: return "f16";
    case CHORUS_BF16: return "bf16";
    case CHORUS_I64: return "i64";
    case CHORUS_I32: return "i32";
    case CHORUS_I16: return "i16";
    case CHORUS_I8: return "i8";
    case CHORUS_U64: return "u64";
    case CHORUS_U32: return "u32";
    case CHORUS_U16: return "u16";
    case CHORUS_U8: return "u8";
    case CHORUS_BOOL: return "bool";
    case CHORUS_F8_E4M3FN: return "f8_e4m3fn";
    case CHORUS_F8_E5M2: return "f8_e5m2";
    case CHORUS_F8_E8M0FNU: return "f8_e8m0fnu";
    default: return "unknown";
  }
}

std::string describe_dtype(chorus_dtype dtype) {
  if (is_known_dtype(dtype)) return dtype_name(dtype);
  return fmt::format("an unknown dtype (code {}, {} bits)", dtype & 0xff, dtype_bits(dtype));
}

uint16_t f32_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x0040u);  // quiet NaN
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

float f16_to_f32(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = half >> 10 & 0x1fu, mantissa = half & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24 is exact
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t f32_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x1ffu));
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // from 65520 on: infinity
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 2^-1's ulp scale rounds to a multiple of 2^-24
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1);
  return static_cast<uint16_t>(sign | rounded >> 13);
}

float f64_to_f32_odd(double value) {
  const float nearest = static_cast<float>(value);
  if (std::isnan(value) || static_cast<double>(nearest) == value || std::isinf(value)) return nearest;
  uint32_t bits = std::bit_cast<uint32_t>(nearest);
  // Towards zero first: one step down where rounding went away from zero (an overflow to infinity included).
  if (std::fabs(static_cast<double>(nearest)) > std::fabs(value)) bits -= 1;
  return std::bit_cast<float>(bits | 1u);
}

double load_f64(const void *data, chorus_dtype dtype, uint64_t i) {
  switch (dtype) {
    case CHORUS_F64: return static_cast<const double *>(data)[i];
    case CHORUS_F32: return static_cast<const float *>(data)[i];
    case CHORUS_BF16: return bf16_to_f32(static_cast<const uint16_t *>(data)[i]);
    default: return f16_to_f32(static_cast<const uint16_t *>(data)[i]);
  }
}

void store_f64(void *data, chorus_dtype dtype, uint64_t i, double value) {
  switch (dtype) {
    case CHORUS_F64: static_cast<double *>(data)[i] = value; break;
    case CHORUS_F32: static_cast<float *>(data)[i] = static_cast<float>(value); break;
    case CHORUS_BF16: static_cast<uint16_t *>(data)[i] = f64_to_bf16(value); break;
    default: static_cast<uint16_t *>(data)[i] = f64_to_f16(value); break;
  }
}

}  // namespace chorus
