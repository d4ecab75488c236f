// SPDX-License-Identifier: Apache-2.0
// What several vocabularies have in common: equality by token, and maps onto their union or intersection.
#pragma once
#include <vector>

#include "vocabulary/map.h"

namespace chorus::vocabulary {

// Fails FAILED_PRECONDITION naming the first id that stands for different tokens.
void check_equal(const Vocabulary &a, const Vocabulary &b);

// docs: chorus_vocabulary_map_create_common. O(tokens).
std::vector<Map> make_common_maps(const std::vector<const Vocabulary *> &vocabularies, bool intersection);

}  // namespace chorus::vocabulary
