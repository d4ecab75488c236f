// SPDX-License-Identifier: Apache-2.0
// moe.h: whole layers, and their weights from checkpoints; calls into route/moe and route/moe_weights.
#include "chorus/moe.h"

#include "abi/boundary.h"
#include "abi/checkpoint_object.h"
#include "abi/route_objects.h"
#include "abi/structs.h"
#include "route/moe.h"
#include "route/moe_weights.h"

using chorus::fail;
using chorus::abi::guarded;
using chorus::abi::require;
using chorus::abi::StructView;

extern "C" {

chorus_status chorus_moe_forward(const chorus_router *router, const chorus_experts *experts, const chorus_tensor *x,
                                 const chorus_tensor *gate, const chorus_tensor *gate_bias, const chorus_route_in *in,
                                 const chorus_tensor *y, const chorus_route_out *out, const chorus_exec *exec,
                                 chorus_error **error) {
  return guarded(error, [&] {
    static constexpr chorus_route_in kNone = CHORUS_ROUTE_IN_INIT;
    static constexpr chorus_route_out kNothing = CHORUS_ROUTE_OUT_INIT;
    require(router, "router");
    require(experts, "experts");
    const StructView beside(in != nullptr ? in : &kNone, "in", CHORUS_END_OF(chorus_route_in, n_valid),
                            CHORUS_END_OF(chorus_route_in, step));
    const StructView wanted(out != nullptr ? out : &kNothing, "out", CHORUS_END_OF(chorus_route_out, inverse),
                            CHORUS_END_OF(chorus_route_out, score_sums));
    chorus::route::moe_forward(router->router, experts->experts, {x, gate, gate_bias, *beside}, y, *wanted, exec);
  });
}

chorus_status chorus_moe_get_workspace_size(const chorus_router *router, const chorus_experts *experts, int64_t tokens,
                                            uint64_t *out_bytes, chorus_error **error) {
  return guarded(error, [&] {
    *require(out_bytes, "out_bytes") =
        chorus::route::moe_workspace(require(router, "router")->router, require(experts, "experts")->experts, tokens);
  });
}

chorus_status chorus_experts_spec_create_from_checkpoint(const chorus_checkpoint *checkpoint, int32_t layer,
                                                         chorus_experts_spec **out_spec, chorus_error **error) {
  return guarded(error, [&] {
    *require(out_spec, "out_spec") = nullptr;
    require(checkpoint, "checkpoint");
    if (layer < 0) fail(CHORUS_INVALID_ARGUMENT, "layer is {}; 0 and above are allowed", layer);
    *out_spec = new chorus_experts_spec{chorus::route::load_experts(checkpoint->model, layer)};
  });
}

chorus_status chorus_experts_spec_get_gate(const chorus_experts_spec *spec, const chorus_tensor **out_gate,
                                           const chorus_tensor **out_gate_bias, const chorus_tensor **out_selection_bias,
                                           chorus_error **error) {
  return guarded(error, [&] {
    const auto &loaded = require(spec, "spec")->spec.loaded;
    require(out_gate, "out_gate");
    require(out_gate_bias, "out_gate_bias");
    require(out_selection_bias, "out_selection_bias");
    if (loaded == nullptr) {
      fail(CHORUS_FAILED_PRECONDITION, "spec was made from tensors, without a gate; "
           "chorus_experts_spec_create_from_checkpoint() reads one");
    }
    *out_gate = loaded->gate.get();
    *out_gate_bias = loaded->gate_bias.get();
    *out_selection_bias = loaded->selection_bias.get();
  });
}

}  // extern "C"
