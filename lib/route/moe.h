// SPDX-License-Identifier: Apache-2.0
// A whole mixture-of-experts layer in one call: the gate's logits, routing, experts.
#pragma once
#include "route/experts.h"
#include "route/router.h"

namespace chorus::route {

struct MoeIn {
  const chorus_tensor *x, *gate, *gate_bias;  // [T, H], [E, H], f32 [E] or NULL
  chorus_route_in route;
};

// `wanted` are outputs of the routing. y = experts(x, router(x gate^T + gate_bias)). Fails INVALID_ARGUMENT when router and experts do not fit together.
void moe_forward(const Router &router, const Experts &experts, const MoeIn &in, const chorus_tensor *y,
                 const chorus_route_out &wanted, const chorus_exec *exec);

// Bytes of workspace for `tokens` tokens.
uint64_t moe_workspace(const Router &router, const Experts &experts, int64_t tokens);

}  // namespace chorus::route
