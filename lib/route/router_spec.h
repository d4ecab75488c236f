// SPDX-License-Identifier: Apache-2.0
// What a router is told before it is made: a descriptor of route.topk that the setters keep valid field by field, and the
// memory it points to.
#pragma once
#include <cstdint>
#include <vector>

#include "chorus/route.h"

namespace chorus::route {

struct RouterSpec {
  // The defaults of chorus_router_spec_create().
  RouterSpec(int32_t n_experts, int32_t k);

  // Each fails INVALID_ARGUMENT naming its argument, and changes nothing then.
  void set_groups(int32_t n_groups, int32_t topk_groups, chorus_route_group_score score, int32_t top);
  void set_hash_table(const chorus_tensor &table);
  void set_capacity(chorus_route_drop drop, int64_t capacity);
  void set_capacity_factor(chorus_route_drop drop, double factor, int64_t minimum, int64_t multiple);
  void set_outputs(uint32_t outputs, int32_t block);

  chorus_route_desc desc;
  std::vector<int32_t> hash_table;  // [rows, k]
};

// Slots per expert of a call with `tokens` valid tokens; 0: no limit.
int64_t capacity_of(const chorus_route_desc &desc, int64_t tokens);

}  // namespace chorus::route
