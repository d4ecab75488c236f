// SPDX-License-Identifier: Apache-2.0
// How evenly experts are loaded, and the bias that evens it out.
#pragma once
#include <cstdint>
#include <vector>

#include "chorus/route_loss.h"

namespace chorus::route {

chorus_route_load load_of(const std::vector<int64_t> &counts);

// +1 where expert e has fewer slots than the mean, -1 where more, 0 where as many; exact in integers.
int direction_of(int64_t count, int64_t slots, int64_t experts);

}  // namespace chorus::route
