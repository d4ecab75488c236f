// SPDX-License-Identifier: Apache-2.0
// route.h, router: setters of the spec, and calls into route/router.
#include "chorus/route.h"

#include <cmath>

#include "abi/boundary.h"
#include "abi/info.h"
#include "abi/route_checks.h"
#include "abi/route_objects.h"
#include "abi/structs.h"
#include "route/presets.h"
#include "route/router.h"
#include "runtime/json.h"

using chorus::fail;
using chorus::abi::check_constant;
using chorus::abi::check_dtype;
using chorus::abi::check_maximum;
using chorus::abi::fill_info;
using chorus::abi::guarded;
using chorus::abi::StructView;
using chorus::abi::require;

struct chorus_router_spec {
  chorus::route::RouterSpec spec;
};

extern "C" {

chorus_status chorus_router_spec_create(int32_t n_experts, int32_t k, chorus_router_spec **out_spec,
                                        chorus_error **error) {
  return guarded(error, [&] {
    *require(out_spec, "out_spec") = nullptr;
    *out_spec = new chorus_router_spec{{n_experts, k}};
  });
}

void chorus_router_spec_destroy(chorus_router_spec *spec) { delete spec; }

chorus_status chorus_router_spec_create_from_checkpoint(const chorus_checkpoint *checkpoint,
                                                        chorus_router_spec **out_spec, chorus_error **error) {
  return guarded(error, [&] {
    *require(out_spec, "out_spec") = nullptr;
    const std::string folder = chorus_checkpoint_get_folder(require(checkpoint, "checkpoint"));
    const std::string text = chorus_checkpoint_get_config(checkpoint);
    if (text.empty()) fail(CHORUS_NOT_FOUND, "{} has no config.json", folder);
    *out_spec = new chorus_router_spec{chorus::route::spec_of_config(chorus::parse_json(text, folder + "/config.json"))};
  });
}

chorus_status chorus_router_spec_set_preset(chorus_router_spec *spec, const char *name, chorus_error **error) {
  return guarded(error, [&] { chorus::route::apply_preset(require(spec, "spec")->spec, require(name, "name")); });
}

const char *chorus_router_preset_name(size_t index) { return chorus::route::preset_name(index); }

chorus_status chorus_router_spec_get_desc(const chorus_router_spec *spec, chorus_route_desc *out_desc,
                                          chorus_error **error) {
  return guarded(error, [&] { fill_info(out_desc, require(spec, "spec")->spec.desc); });
}

chorus_status chorus_router_spec_set_max_tokens(chorus_router_spec *spec, int64_t max_tokens, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    check_maximum("max_tokens", max_tokens);
    spec->spec.desc.max_tokens = max_tokens;
  });
}

chorus_status chorus_router_spec_set_dtypes(chorus_router_spec *spec, chorus_dtype logits, chorus_dtype ids,
                                            chorus_dtype weights, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    check_dtype("logits", logits, {CHORUS_F32, CHORUS_F16, CHORUS_BF16});
    check_dtype("ids", ids, {CHORUS_I32, CHORUS_I64});
    check_dtype("weights", weights, {CHORUS_F32, CHORUS_BF16});
    spec->spec.desc.logits_dtype = logits;
    spec->spec.desc.ids_dtype = ids;
    spec->spec.desc.weights_dtype = weights;
  });
}

chorus_status chorus_router_spec_set_score(chorus_router_spec *spec, chorus_route_score score, chorus_route_order order,
                                           chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    check_constant("score", score, CHORUS_ROUTE_RELU);
    check_constant("order", order, CHORUS_ROUTE_TOPK_THEN_SCORE);
    spec->spec.desc.score = score;
    spec->spec.desc.order = order;
  });
}

chorus_status chorus_router_spec_set_bias(chorus_router_spec *spec, int32_t has_bias, chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->spec.desc.has_bias = has_bias != 0 ? 1 : 0; });
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
    spec->spec.desc.renormalise = renormalise;
    spec->spec.desc.epsilon = epsilon;
    spec->spec.desc.scale = scale;
  });
}

chorus_status chorus_router_spec_set_weight_before(chorus_router_spec *spec, int32_t weight_before,
                                                   chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->spec.desc.weight_before = weight_before != 0 ? 1 : 0; });
}

chorus_status chorus_router_spec_set_groups(chorus_router_spec *spec, int32_t n_groups, int32_t topk_groups,
                                            chorus_route_group_score score, int32_t top, chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->spec.set_groups(n_groups, topk_groups, score, top); });
}

chorus_status chorus_router_spec_set_selection(chorus_router_spec *spec, chorus_route_selection selection,
                                               chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    check_constant("selection", selection, CHORUS_ROUTE_GUMBEL_SECOND);
    if (selection == CHORUS_ROUTE_HASH_TABLE) {
      fail(CHORUS_INVALID_ARGUMENT, "selection is CHORUS_ROUTE_HASH_TABLE; chorus_router_spec_set_hash_table sets it");
    }
    spec->spec.desc.selection = selection;
  });
}

chorus_status chorus_router_spec_set_hash_table(chorus_router_spec *spec, const chorus_tensor *table,
                                                chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->spec.set_hash_table(*require(table, "table")); });
}

chorus_status chorus_router_spec_set_noise(chorus_router_spec *spec, double deviation, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    if (!(deviation >= 0) || !std::isfinite(static_cast<float>(deviation))) {
      fail(CHORUS_INVALID_ARGUMENT, "deviation is {}; >= 0 and finite as f32 is needed", deviation);
    }
    spec->spec.desc.noise = deviation;
  });
}

chorus_status chorus_router_spec_set_temperature(chorus_router_spec *spec, double temperature, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    const auto rounded = static_cast<float>(temperature);
    if (!(rounded > 0) || !std::isfinite(rounded)) {
      fail(CHORUS_INVALID_ARGUMENT, "temperature is {}; above 0 and finite as f32 is needed", temperature);
    }
    spec->spec.desc.temperature = temperature;
  });
}

chorus_status chorus_router_spec_set_capacity(chorus_router_spec *spec, chorus_route_drop drop, int64_t capacity,
                                              chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->spec.set_capacity(drop, capacity); });
}

chorus_status chorus_router_spec_set_capacity_factor(chorus_router_spec *spec, chorus_route_drop drop, double factor,
                                                     int64_t minimum, int64_t multiple, chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->spec.set_capacity_factor(drop, factor, minimum, multiple); });
}

chorus_status chorus_router_spec_set_renormalise_last(chorus_router_spec *spec, int32_t last, chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->spec.desc.renormalise_last = last != 0 ? 1 : 0; });
}

chorus_status chorus_router_spec_set_outputs(chorus_router_spec *spec, uint32_t outputs, int32_t block,
                                             chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->spec.set_outputs(outputs, block); });
}

chorus_status chorus_router_create(const chorus_context *context, const chorus_router_spec *spec, const char *device,
                                   chorus_router **out_router, chorus_error **error) {
  return guarded(error, [&] {
    *require(out_router, "out_router") = nullptr;
    *out_router = new chorus_router{{chorus::context_of(context), require(spec, "spec")->spec, require(device, "device")}};
  });
}

void chorus_router_destroy(chorus_router *router) { delete router; }

chorus_status chorus_router_route(const chorus_router *router, const chorus_tensor *logits, const chorus_route_in *in,
                                  const chorus_route_out *out, const chorus_exec *exec, chorus_error **error) {
  return guarded(error, [&] {
    static constexpr chorus_route_in kNone = CHORUS_ROUTE_IN_INIT;
    require(router, "router");
    const StructView beside(in != nullptr ? in : &kNone, "in", CHORUS_END_OF(chorus_route_in, n_valid),
                            CHORUS_END_OF(chorus_route_in, step));
    const StructView wanted(out, "out", CHORUS_END_OF(chorus_route_out, inverse), CHORUS_END_OF(chorus_route_out, score_sums));
    router->router.route(logits, *beside, *wanted, exec);
  });
}

chorus_status chorus_router_get_workspace_size(const chorus_router *router, int64_t tokens, uint64_t *out_bytes,
                                               chorus_error **error) {
  return guarded(error, [&] {
    *require(out_bytes, "out_bytes") = require(router, "router")->router.workspace_size(tokens);
  });
}

chorus_status chorus_router_get_capacity(const chorus_router *router, int64_t tokens, int64_t *out_capacity,
                                         chorus_error **error) {
  return guarded(error, [&] {
    *require(out_capacity, "out_capacity") = 0;
    *out_capacity = require(router, "router")->router.capacity(tokens);
  });
}

const char *chorus_router_get_kernel(const chorus_router *router) {
  return router != nullptr ? router->router.kernel_name() : "";
}

}  // extern "C"
