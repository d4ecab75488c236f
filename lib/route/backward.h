// SPDX-License-Identifier: Apache-2.0
// What gradients of a router's weights and losses are with respect to its logits.
#pragma once
#include "chorus/route_loss.h"
#include "route/router.h"

namespace chorus::route {

// Fails INVALID_ARGUMENT naming the tensor; UNIMPLEMENTED (chorus_router_backward).
void router_backward(const Router &router, const chorus_tensor *logits, const chorus_tensor *ids,
                     const chorus_tensor *weights_gradient, const chorus_tensor *logits_gradient);

// The loss; its gradient where `gradient` is not NULL (chorus_router_get_loss).
double router_loss(const Router &router, const chorus_tensor *logits, const chorus_route_loss_in &in,
                   const chorus_tensor *gradient);

// Shared by both: fails where the host may not read the router's tensors.
void check_host_router(const Router &router);

}  // namespace chorus::route
