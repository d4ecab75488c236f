// SPDX-License-Identifier: Apache-2.0
// route.h, experts: setters of the spec, and calls into route/experts.
#include "chorus/route.h"

#include <cmath>

#include "abi/boundary.h"
#include "abi/route_checks.h"
#include "abi/route_objects.h"
#include "route/experts.h"

using chorus::fail;
using chorus::abi::check_constant;
using chorus::abi::check_dtype;
using chorus::abi::check_maximum;
using chorus::abi::guarded;
using chorus::abi::require;

extern "C" {

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
