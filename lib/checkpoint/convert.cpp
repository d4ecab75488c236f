// SPDX-License-Identifier: Apache-2.0
// Conversion loops. Through f32 where both ends have at most 32 bits (exact in), else through f64.
#include "checkpoint/convert.h"

#include <cstring>

#include "runtime/dtype.h"

namespace chorus::checkpoint {
namespace {

float to_f32(float x) { return x; }
struct Bf16 { uint16_t bits; };
struct F16 { uint16_t bits; };
float to_f32(Bf16 x) { return bf16_to_f32(x.bits); }
float to_f32(F16 x) { return f16_to_f32(x.bits); }
void store(float *to, float x) { *to = x; }
void store(Bf16 *to, float x) { to->bits = f32_to_bf16(x); }
void store(F16 *to, float x) { to->bits = f32_to_f16(x); }

template <typename From, typename To>
void convert_small(const void *from, void *to, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) store(static_cast<To *>(to) + i, to_f32(static_cast<const From *>(from)[i]));
}

template <typename From>
void convert_from(const void *from, void *to, chorus_dtype to_dtype, uint64_t count) {
  switch (to_dtype) {
    case CHORUS_F32: return convert_small<From, float>(from, to, count);
    case CHORUS_BF16: return convert_small<From, Bf16>(from, to, count);
    default: return convert_small<From, F16>(from, to, count);
  }
}

}  // namespace

bool can_convert(chorus_dtype from, chorus_dtype to) { return from == to || (is_float(from) && is_float(to)); }

void convert(const void *from, chorus_dtype from_dtype, void *to, chorus_dtype to_dtype, uint64_t count) {
  if (from_dtype == CHORUS_F64 || to_dtype == CHORUS_F64) {
    for (uint64_t i = 0; i < count; ++i) store_f64(to, to_dtype, i, load_f64(from, from_dtype, i));
    return;
  }
  switch (from_dtype) {
    case CHORUS_F32: return convert_from<float>(from, to, to_dtype, count);
    case CHORUS_BF16: return convert_from<Bf16>(from, to, to_dtype, count);
    default: return convert_from<F16>(from, to, to_dtype, count);
  }
}

}  // namespace chorus::checkpoint
