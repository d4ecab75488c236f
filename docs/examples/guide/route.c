/* SPDX-License-Identifier: Apache-2.0
 *
 * Sends each of two tokens to the best 2 of 4 experts and computes only those.
 */
#include "guide.h"

enum { kTokens = 2, kExperts = 4, kChosen = 2, kHidden = 2, kInner = 1 };

int main(void) {
  static const int64_t by_expert[] = {kTokens, kExperts}, by_choice[] = {kTokens, kChosen};
  static const int64_t x_shape[] = {kTokens, kHidden};
  static const int64_t up_shape[] = {kExperts, 2 * kInner, kHidden}, down_shape[] = {kExperts, kHidden, kInner};
  static const int64_t counts_shape[] = {kExperts};
  /* Rows of experts: silu(x0) * x1, sent back as (e, -e) for expert e = 1, 2, 3, 4. */
  float gate_up[] = {1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1}, down[] = {1, -1, 2, -2, 3, -3, 4, -4};
  float logits[] = {1, 3, 2, 0, 0, 0, 1, 1}, x[] = {1, 1, 2, 1}, weights[kTokens * kChosen], y[kTokens * kHidden];
  int32_t ids[kTokens * kChosen], counts[kExperts];
  chorus_tensor logits_view = view(logits, CHORUS_F32, 2, by_expert), x_view = view(x, CHORUS_F32, 2, x_shape);
  chorus_tensor ids_view = view(ids, CHORUS_I32, 2, by_choice), weights_view = view(weights, CHORUS_F32, 2, by_choice);
  chorus_tensor counts_view = view(counts, CHORUS_I32, 1, counts_shape), y_view = view(y, CHORUS_F32, 2, x_shape);
  chorus_tensor up_view = view(gate_up, CHORUS_F32, 3, up_shape), down_view = view(down, CHORUS_F32, 3, down_shape);
  chorus_context *context;
  chorus_router_spec *route_spec;
  chorus_router *router;
  chorus_experts_spec *experts_spec;
  chorus_experts *experts;
  chorus_route_out out = CHORUS_ROUTE_OUT_INIT;
  int t;

  CHECK(chorus_context_create(NULL, &context, &error));
  CHECK(chorus_router_spec_create(kExperts, kChosen, &route_spec, &error));
  CHECK(chorus_router_spec_set_max_tokens(route_spec, kTokens, &error));
  CHECK(chorus_router_spec_set_weights(route_spec, CHORUS_ROUTE_RENORMALISE_SUM, 0, 1, &error)); /* as Mixtral does */
  CHECK(chorus_router_create(context, route_spec, "auto", &router, &error));
  CHECK(chorus_experts_spec_create(&up_view, &down_view, kChosen, &experts_spec, &error));
  CHECK(chorus_experts_spec_set_max_tokens(experts_spec, kTokens, &error));
  CHECK(chorus_experts_create(context, experts_spec, "auto", &experts, &error)); /* packs the weights once */

  out.ids = &ids_view;
  out.weights = &weights_view;
  out.counts = &counts_view;
  CHECK(chorus_router_route(router, &logits_view, NULL, &out, NULL, &error));
  CHECK(chorus_experts_run(experts, &x_view, &ids_view, &weights_view, &y_view, NULL, NULL, &error));
  for (t = 0; t < kTokens; ++t) {
    printf("token %d: %.3f of expert %d + %.3f of expert %d = (%.3f, %.3f)\n", t, weights[2 * t], (int)ids[2 * t],
           weights[2 * t + 1], (int)ids[2 * t + 1], y[2 * t], y[2 * t + 1]);
  }
  printf("tokens per expert: %d %d %d %d\n", (int)counts[0], (int)counts[1], (int)counts[2], (int)counts[3]);

  chorus_experts_destroy(experts);
  chorus_experts_spec_destroy(experts_spec);
  chorus_router_destroy(router);
  chorus_router_spec_destroy(route_spec);
  chorus_context_destroy(context);
  return 0;
}
