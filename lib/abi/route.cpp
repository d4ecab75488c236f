// SPDX-License-Identifier: Apache-2.0
// route.h: setters of the specs, and calls into route/router and route/experts.
#include "chorus/route.h"

#include <cmath>

#include "abi/boundary.h"
#include "abi/structs.h"
#include "route/experts.h"
#include "route/router.h"
#include "runtime/dtype.h"

using chorus::fail;
using chorus::abi::guarded;
using chorus::abi::read_struct;
using chorus::abi::require;

struct chorus_router_spec {
  chorus_route_desc desc;
};
struct chorus_router {
  chorus::route::Router router;
};
struct chorus_experts_spec {
  chorus::route::ExpertsSpec spec;
};
struct chorus_experts {
  chorus::route::Experts experts;
};

namespace {

void check_dtype(const char *name, chorus_dtype dtype, std::initializer_list<chorus_dtype> allowed) {
  std::string known;
  for (const chorus_dtype one : allowed) {
    if (one == dtype) return;
    known += (known.empty() ? "" : ", ") + std::string(chorus::dtype_name(one));
  }
  fail(chorus::is_known_dtype(dtype) ? CHORUS_UNIMPLEMENTED : CHORUS_INVALID_ARGUMENT, "{} is {}; supported: {}", name,
       chorus::describe_dtype(dtype), known);
}

void check_constant(const char *name, int32_t value, int32_t last) {
  if (value < 0 || value > last) fail(CHORUS_INVALID_ARGUMENT, "{} is {}; 0 to {} are known", name, value, last);
}

void check_maximum(const char *name, int64_t value) {
  if (value < 1 || value > INT32_MAX) fail(CHORUS_INVALID_ARGUMENT, "{} is {}; 1 to 2^31 - 1 are allowed", name, value);
}

}  // namespace

extern "C" {

chorus_status chorus_router_spec_create(int32_t n_experts, int32_t k, chorus_router_spec **out_spec,
                                        chorus_error **error) {
  return guarded(error, [&] {
    *require(out_spec, "out_spec") = nullptr;
    *out_spec = new chorus_router_spec{chorus::route::default_desc(n_experts, k)};
  });
}

void chorus_router_spec_destroy(chorus_router_spec *spec) { delete spec; }

chorus_status chorus_router_spec_set_max_tokens(chorus_router_spec *spec, int64_t max_tokens, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    check_maximum("max_tokens", max_tokens);
    spec->desc.max_tokens = max_tokens;
  });
}

chorus_status chorus_router_spec_set_dtypes(chorus_router_spec *spec, chorus_dtype logits, chorus_dtype ids,
                                            chorus_dtype weights, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    check_dtype("logits", logits, {CHORUS_F32, CHORUS_F16, CHORUS_BF16});
    check_dtype("ids", ids, {CHORUS_I32, CHORUS_I64});
    check_dtype("weights", weights, {CHORUS_F32, CHORUS_BF16});
    spec->desc.logits_dtype = logits;
    spec->desc.ids_dtype = ids;
    spec->desc.weights_dtype = weights;
  });
}

chorus_status chorus_router_spec_set_score(chorus_router_spec *spec, chorus_route_score score, chorus_route_order order,
                                           chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    check_constant("score", score, CHORUS_ROUTE_RELU);
    check_constant("order", order, CHORUS_ROUTE_TOPK_THEN_SCORE);
    spec->desc.score = score;
    spec->desc.order = order;
  });
}

chorus_status chorus_router_spec_set_bias(chorus_router_spec *spec, int32_t has_bias, chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->desc.has_bias = has_bias != 0 ? 1 : 0; });
}

chorus_status chorus_router_spec_set_weights(chorus_router_spec *spec, chorus_route_renormalise renormalise,
                                             double epsilon, double scale, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    check_constant("renormalise", renormalise, CHORUS_ROUTE_RENORMALISE_CLAMPED);
    if (!(epsilon >= 0) || std::isinf(epsilon)) {
      fail(CHORUS_INVALID_ARGUMENT, "epsilon is {}; finite and >= 0 is needed", epsilon);
    }
    if (!std::isfinite(scale)) fail(CHORUS_INVALID_ARGUMENT, "scale is {}; it must be finite", scale);
    spec->desc.renormalise = renormalise;
    spec->desc.epsilon = epsilon;
    spec->desc.scale = scale;
  });
}

chorus_status chorus_router_create(const chorus_context *context, const chorus_router_spec *spec, const char *device,
                                   chorus_router **out_router, chorus_error **error) {
  return guarded(error, [&] {
    *require(out_router, "out_router") = nullptr;
    *out_router = new chorus_router{{chorus::context_of(context), require(spec, "spec")->desc, require(device, "device")}};
  });
}

void chorus_router_destroy(chorus_router *router) { delete router; }

chorus_status chorus_router_route(const chorus_router *router, const chorus_tensor *logits, const chorus_route_in *in,
                                  const chorus_route_out *out, const chorus_exec *exec, chorus_error **error) {
  return guarded(error, [&] {
    require(router, "router");
    const chorus_route_in none = CHORUS_ROUTE_IN_INIT;
    router->router.route(logits, in == nullptr ? none : read_struct(in, "in", CHORUS_END_OF(chorus_route_in, n_valid)),
                         read_struct(out, "out", CHORUS_END_OF(chorus_route_out, inverse)), exec);
  });
}

chorus_status chorus_router_get_workspace_size(const chorus_router *router, int64_t tokens, uint64_t *out_bytes,
                                               chorus_error **error) {
  return guarded(error, [&] {
    *require(out_bytes, "out_bytes") = require(router, "router")->router.workspace_size(tokens);
  });
}

const char *chorus_router_get_kernel(const chorus_router *router) {
  return router != nullptr ? router->router.kernel_name() : "";
}

chorus_status chorus_experts_spec_create(const chorus_tensor *gate_up, const chorus_tensor *down, int32_t k,
                                         chorus_experts_spec **out_spec, chorus_error **error) {
  return guarded(error, [&] {
    *require(out_spec, "out_spec") = nullptr;
    *out_spec = new chorus_experts_spec{{gate_up, down, k}};
  });
}

void chorus_experts_spec_destroy(chorus_experts_spec *spec) { delete spec; }

chorus_status chorus_experts_spec_set_max_tokens(chorus_experts_spec *spec, int64_t max_tokens, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    check_maximum("max_tokens", max_tokens);
    spec->spec.desc.max_tokens = max_tokens;
  });
}

chorus_status chorus_experts_spec_set_dtypes(chorus_experts_spec *spec, chorus_dtype x, chorus_dtype y, chorus_dtype ids,
                                             chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    check_dtype("x", x, {CHORUS_F32, CHORUS_BF16});
    check_dtype("y", y, {CHORUS_F32, CHORUS_BF16});
    check_dtype("ids", ids, {CHORUS_I32, CHORUS_I64});
    spec->spec.desc.x_dtype = x;
    spec->spec.desc.y_dtype = y;
    spec->spec.desc.ids_dtype = ids;
  });
}

chorus_status chorus_experts_spec_set_activation(chorus_experts_spec *spec, chorus_activation activation,
                                                 chorus_gate_layout layout, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    check_constant("activation", activation, CHORUS_ACTIVATION_GPT_OSS);
    check_constant("layout", layout, CHORUS_GATE_UP_INTERLEAVED);
    spec->spec.desc.activation = activation;
    spec->spec.desc.layout = layout;
  });
}

chorus_status chorus_experts_spec_set_biases(chorus_experts_spec *spec, const chorus_tensor *gate_up_bias,
                                             const chorus_tensor *down_bias, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec")->spec.desc.gate_up_bias = gate_up_bias;
    spec->spec.desc.down_bias = down_bias;
  });
}

chorus_status chorus_experts_spec_set_limit(chorus_experts_spec *spec, double limit, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    if (!(limit >= 0) || std::isinf(limit)) {
      fail(CHORUS_INVALID_ARGUMENT, "limit is {}; finite and >= 0 is needed, 0 for none", limit);
    }
    spec->spec.desc.limit = limit;
  });
}

chorus_status chorus_experts_spec_set_weight_before(chorus_experts_spec *spec, int32_t weight_before, chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->spec.desc.weight_before = weight_before != 0 ? 1 : 0; });
}

chorus_status chorus_experts_spec_set_batch_invariant(chorus_experts_spec *spec, int32_t batch_invariant,
                                                      chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->spec.desc.batch_invariant = batch_invariant != 0 ? 1 : 0; });
}

chorus_status chorus_experts_spec_set_shared(chorus_experts_spec *spec, int32_t n_shared, chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->spec.set_shared(n_shared); });
}

chorus_status chorus_experts_spec_set_expert_map(chorus_experts_spec *spec, const chorus_tensor *expert_map,
                                                 chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->spec.set_expert_map(*require(expert_map, "expert_map")); });
}

chorus_status chorus_experts_create(const chorus_context *context, const chorus_experts_spec *spec, const char *device,
                                    chorus_experts **out_experts, chorus_error **error) {
  return guarded(error, [&] {
    *require(out_experts, "out_experts") = nullptr;
    *out_experts = new chorus_experts{{chorus::context_of(context), require(spec, "spec")->spec, require(device, "device")}};
  });
}

void chorus_experts_destroy(chorus_experts *experts) { delete experts; }

chorus_status chorus_experts_run(const chorus_experts *experts, const chorus_tensor *x, const chorus_tensor *ids,
                                 const chorus_tensor *weights, const chorus_tensor *y, const chorus_tensor *status,
                                 const chorus_exec *exec, chorus_error **error) {
  return guarded(error, [&] { require(experts, "experts")->experts.run(x, ids, weights, y, status, exec); });
}

chorus_status chorus_experts_get_workspace_size(const chorus_experts *experts, int64_t tokens, uint64_t *out_bytes,
                                                chorus_error **error) {
  return guarded(error, [&] {
    *require(out_bytes, "out_bytes") = require(experts, "experts")->experts.workspace_size(tokens);
  });
}

uint64_t chorus_experts_get_packed_bytes(const chorus_experts *experts) {
  return experts != nullptr ? experts->experts.packed_bytes() : 0;
}

const char *chorus_experts_get_kernel(const chorus_experts *experts) {
  return experts != nullptr ? experts->experts.kernel_name() : "";
}

}  // extern "C"
