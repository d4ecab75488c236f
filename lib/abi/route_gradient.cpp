// SPDX-License-Identifier: Apache-2.0
// route_loss.h, losses and gradients: calls into route/loss and route/backward.
#include "abi/boundary.h"
#include "abi/route_objects.h"
#include "abi/structs.h"
#include "route/backward.h"

using chorus::abi::guarded;
using chorus::abi::read_struct;
using chorus::abi::require;

extern "C" {

chorus_status chorus_router_get_loss(const chorus_router *router, const chorus_tensor *logits, const chorus_route_loss_in *in,
                                     double *out_loss, const chorus_tensor *gradient, chorus_error **error) {
  return guarded(error, [&] {
    require(router, "router");
    require(out_loss, "out_loss");
    const auto read = read_struct(in, "in", CHORUS_END_OF(chorus_route_loss_in, noise));
    *out_loss = chorus::route::router_loss(router->router, logits, read, gradient);
  });
}

chorus_status chorus_router_backward(const chorus_router *router, const chorus_tensor *logits, const chorus_tensor *ids,
                                     const chorus_tensor *weights_gradient, const chorus_tensor *logits_gradient,
                                     chorus_error **error) {
  return guarded(error, [&] {
    chorus::route::router_backward(require(router, "router")->router, logits, ids, weights_gradient, logits_gradient);
  });
}

}  // extern "C"
