// SPDX-License-Identifier: Apache-2.0
// Statistics of the counts of experts: see load.h. Sums of counts are integers, so their order is nothing.
#include "route/load.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace chorus::route {

chorus_route_load load_of(const std::vector<int64_t> &counts) {
  chorus_route_load load = CHORUS_ROUTE_LOAD_INIT;
  const auto experts = static_cast<double>(counts.size());
  const auto slots = static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
  load.entropy_of_even = std::log(experts);
  load.idle = std::count(counts.begin(), counts.end(), 0);
  load.busiest = -1;
  if (slots == 0) return load;
  const auto busiest = std::max_element(counts.begin(), counts.end());
  const double mean = slots / experts;
  double squares = 0;
  for (const int64_t count : counts) {
    const double deviation = static_cast<double>(count) - mean, share = static_cast<double>(count) / slots;
    squares += deviation * deviation;
    if (share > 0) load.entropy -= share * std::log(share);
  }
  load.slots = slots;
  load.max_to_mean = static_cast<double>(*busiest) / mean;
  load.variation = std::sqrt(squares / experts) / mean;
  load.busiest = static_cast<int32_t>(busiest - counts.begin());
  return load;
}

int direction_of(int64_t count, int64_t slots, int64_t experts) {
  // n_e against N / E without rounding: both sides times E. Counts of at most 2^36 keep this within i64.
  const int64_t mine = count * experts;
  return (mine < slots) - (mine > slots);
}

}  // namespace chorus::route
