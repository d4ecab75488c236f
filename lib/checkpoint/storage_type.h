// SPDX-License-Identifier: Apache-2.0
// The element types a safetensors file can hold: their names there, their DLPack numbers, their bits.
#pragma once
#include <cstdint>
#include <string_view>

#include "chorus/types.h"

namespace chorus::checkpoint {

struct StorageType {
  const char *name;    // "BF16", as in the header
  chorus_dtype dtype;  // DLPack code | bits << 8; C64's bits count both parts
  uint32_t rank;       // the order of the Rust crate's enum: data of higher rank come first in a file
  uint32_t bits() const { return dtype >> 8; }
};

// The type of that name or dtype; NULL when safetensors 0.8 does not know it.
const StorageType *storage_type(std::string_view name);
const StorageType *storage_type(chorus_dtype dtype);

}  // namespace chorus::checkpoint
