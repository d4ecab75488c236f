// SPDX-License-Identifier: Apache-2.0
// What a tensor is for, told from its name: layer, expert, block, matrix. No table of architectures.
#pragma once
#include <cstdint>
#include <string_view>

#include "chorus/checkpoint.h"

namespace chorus::checkpoint {

struct Role {
  chorus_tensor_kind kind = CHORUS_TENSOR_KIND_OTHER;
  chorus_tensor_part part = CHORUS_TENSOR_PART_NONE;
  int32_t layer = -1;
  int32_t expert = -1;
  uint32_t flags = 0;  // CHORUS_TENSOR_ROLE_*
};

// Linear in the length of `name`.
Role role_of(std::string_view name);

}  // namespace chorus::checkpoint
