// SPDX-License-Identifier: Apache-2.0
// Elements of a checkpoint between f64, f32, f16 and bf16, one rounding to nearest even.
#pragma once
#include <cstdint>

#include "chorus/types.h"

namespace chorus::checkpoint {

bool can_convert(chorus_dtype from, chorus_dtype to);

// `count` elements; the arrays do not overlap and are aligned. can_convert() holds.
void convert(const void *from, chorus_dtype from_dtype, void *to, chorus_dtype to_dtype, uint64_t count);

}  // namespace chorus::checkpoint
