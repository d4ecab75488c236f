// SPDX-License-Identifier: Apache-2.0
// combine.h: setters of the spec, and calls into combine/combiner.
#include "chorus/combine.h"

#include <limits>

#include "abi/boundary.h"
#include "abi/combine.h"
#include "abi/structs.h"
#include "runtime/dtype.h"

using chorus::fail;
using chorus::abi::guarded;
using chorus::abi::require;

struct chorus_combiner {
  chorus::combine::Combiner combiner;
};

namespace {

constexpr uint32_t kAllOutputs = 2 * CHORUS_COMBINE_OUT_MODEL_TOKEN_LOG_PROBS - 1;

}  // namespace

extern "C" {

chorus_status chorus_combiner_spec_create(chorus_combiner_spec **out_spec, chorus_error **error) {
  return guarded(error, [&] { *require(out_spec, "out_spec") = new chorus_combiner_spec; });
}

void chorus_combiner_spec_destroy(chorus_combiner_spec *spec) { delete spec; }

chorus_status chorus_combiner_spec_set_rule(chorus_combiner_spec *spec, chorus_combine_rule rule, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    if (rule < CHORUS_COMBINE_LINEAR || rule > CHORUS_COMBINE_CONDORCET) {
      fail(CHORUS_INVALID_ARGUMENT, "rule is {}; CHORUS_COMBINE_LINEAR (0) to CHORUS_COMBINE_CONDORCET (10) are known", rule);
    }
    spec->spec.rule = rule;
  });
}

chorus_status chorus_combiner_spec_set_vocabulary_size(chorus_combiner_spec *spec, int64_t n_tokens,
                                                       chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    if (n_tokens < 1 || n_tokens > std::numeric_limits<int32_t>::max()) {
      fail(CHORUS_INVALID_ARGUMENT, "n_tokens is {}; 1 to 2^31 - 1 are allowed", n_tokens);
    }
    spec->spec.n_tokens = n_tokens;
  });
}

chorus_status chorus_combiner_spec_set_max_rows(chorus_combiner_spec *spec, int64_t max_rows, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    if (max_rows < 1) fail(CHORUS_INVALID_ARGUMENT, "max_rows is {}; at least 1 is needed", max_rows);
    spec->spec.max_rows = max_rows;
  });
}

chorus_status chorus_combiner_spec_set_outputs(chorus_combiner_spec *spec, uint32_t outputs, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    if ((outputs & ~kAllOutputs) != 0) {
      fail(CHORUS_INVALID_ARGUMENT, "outputs is {:#x}; the bits {:#x} are known", outputs, kAllOutputs);
    }
    spec->spec.outputs = outputs;
  });
}

chorus_status chorus_combiner_spec_set_log_probs_dtype(chorus_combiner_spec *spec, chorus_dtype dtype,
                                                       chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    if (dtype != CHORUS_F32 && dtype != CHORUS_F16 && dtype != CHORUS_BF16) {
      fail(CHORUS_INVALID_ARGUMENT, "dtype is {}; log-prob rows are f32, f16 or bf16", chorus::describe_dtype(dtype));
    }
    spec->spec.log_probs_dtype = dtype;
  });
}

chorus_status chorus_combiner_spec_set_weights_per_row(chorus_combiner_spec *spec, int32_t per_row, chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->spec.weights_per_row = per_row != 0; });
}

chorus_status chorus_combiner_spec_add_model(chorus_combiner_spec *spec, chorus_score_kind kind, chorus_dtype dtype,
                                             int64_t n_logits, int64_t n_valid, double weight, double temperature,
                                             int32_t *out_index, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    chorus_combine_model model = CHORUS_COMBINE_MODEL_INIT;
    model.kind = kind;
    model.dtype = dtype;
    model.n_logits = n_logits;
    model.n_valid = n_valid;
    model.weight = weight;
    model.temperature = temperature;
    spec->spec.add_model(model);
    if (out_index != nullptr) *out_index = static_cast<int32_t>(spec->spec.models.size()) - 1;
  });
}

chorus_status chorus_combiner_create(const chorus_context *context, const chorus_combiner_spec *spec, const char *device,
                                     chorus_combiner **out_combiner, chorus_error **error) {
  return guarded(error, [&] {
    *require(out_combiner, "out_combiner") = nullptr;
    *out_combiner = new chorus_combiner{{chorus::context_of(context), require(spec, "spec")->spec, require(device, "device")}};
  });
}

void chorus_combiner_destroy(chorus_combiner *combiner) { delete combiner; }

chorus_status chorus_combiner_run(const chorus_combiner *combiner, const chorus_combine_in *in,
                                  const chorus_combine_out *out, const chorus_exec *exec, chorus_error **error) {
  return guarded(error, [&] {
    require(combiner, "combiner");
    combiner->combiner.run(chorus::abi::read_struct(in, "in", CHORUS_END_OF(chorus_combine_in, tokens)),
                           chorus::abi::read_struct(out, "out", CHORUS_END_OF(chorus_combine_out, status)), exec);
  });
}

chorus_status chorus_combiner_get_workspace_size(const chorus_combiner *combiner, int64_t rows, uint64_t *out_bytes,
                                                 chorus_error **error) {
  return guarded(error, [&] {
    *require(out_bytes, "out_bytes") = require(combiner, "combiner")->combiner.workspace_size(rows);
  });
}

const char *chorus_combiner_get_kernel(const chorus_combiner *combiner) {
  return combiner != nullptr ? combiner->combiner.kernel_name() : "";
}

}  // extern "C"
