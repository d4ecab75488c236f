// SPDX-License-Identifier: Apache-2.0
// Maps between the ids of two vocabularies, by the bytes of their tokens.
#pragma once
#include <cstdint>
#include <vector>

#include "vocabulary/vocabulary.h"

namespace chorus::vocabulary {

struct Map {
  std::vector<int64_t> offsets;     // CSR: a row per token of `to`
  std::vector<int32_t> ids;         // of `from`, ascending within a row
  std::vector<int32_t> to_of_from;  // -1: no place
};

// O(n log n); docs: chorus_vocabulary_map_create.
Map make_map(const Vocabulary &from, const Vocabulary &to);

}  // namespace chorus::vocabulary
