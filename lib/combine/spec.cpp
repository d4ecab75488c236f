// SPDX-License-Identifier: Apache-2.0
// What a combiner's spec accepts, and the descriptor it becomes.
#include "combine/spec.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/dtype.h"
#include "runtime/error.h"

namespace chorus::combine {
namespace {

void check_linear(const Spec &spec) {
  double sum = 0;
  for (size_t i = 0; i < spec.models.size(); ++i) {
    if (spec.models[i].weight < 0) {
      fail(CHORUS_INVALID_ARGUMENT, "model {} has weight {}; a linear mixture takes weights >= 0", i,
           spec.models[i].weight);
    }
    sum += spec.models[i].weight;
  }
  if (sum == 0) fail(CHORUS_INVALID_ARGUMENT, "all weights of the linear mixture are 0; at least one must be positive");
}

}  // namespace

void Spec::add_model(const chorus_combine_model &model) {
  if (models.size() >= CHORUS_COMBINE_MAX_MODELS) {
    fail(CHORUS_RESOURCE_EXHAUSTED, "there are {} models already, the most a combiner takes", models.size());
  }
  if (model.kind < CHORUS_SCORES_LOGITS || model.kind > CHORUS_SCORES_PROBS) {
    fail(CHORUS_INVALID_ARGUMENT, "kind is {}; logits (0), log-probs (1) and probs (2) are known", model.kind);
  }
  if (!is_known_dtype(model.dtype)) fail(CHORUS_INVALID_ARGUMENT, "dtype is {}", describe_dtype(model.dtype));
  if (model.dtype != CHORUS_F32 && model.dtype != CHORUS_F16 && model.dtype != CHORUS_BF16) {
    fail(CHORUS_UNIMPLEMENTED, "dtype is {}; scores are f32, f16 or bf16", dtype_name(model.dtype));
  }
  if (model.n_logits < 1 || model.n_logits > std::numeric_limits<int32_t>::max()) {
    fail(CHORUS_INVALID_ARGUMENT, "n_logits is {}; 1 to 2^31 - 1 are allowed", model.n_logits);
  }
  if (model.n_valid < 1 || model.n_valid > model.n_logits) {
    fail(CHORUS_INVALID_ARGUMENT, "n_valid is {}; 1 to n_logits ({}) are allowed", model.n_valid, model.n_logits);
  }
  if (!std::isfinite(static_cast<float>(model.weight))) {
    fail(CHORUS_INVALID_ARGUMENT, "weight is {}; it must be finite, in f32 too", model.weight);
  }
  if (!(model.temperature >= 0) || std::isinf(static_cast<float>(model.temperature))) {
    fail(CHORUS_INVALID_ARGUMENT, "temperature is {}; finite and >= 0 is needed", model.temperature);
  }
  models.push_back(model);
}

Spec completed(Spec spec) {
  if (spec.models.empty()) fail(CHORUS_INVALID_ARGUMENT, "spec has no model; chorus_combiner_spec_add_model() adds one");
  int64_t largest = 0;
  for (const chorus_combine_model &model : spec.models) largest = std::max(largest, model.n_valid);
  if (spec.n_tokens == 0) spec.n_tokens = largest;
  if (largest > spec.n_tokens) {
    fail(CHORUS_INVALID_ARGUMENT, "a model has {} valid tokens; the vocabulary size is {}", largest, spec.n_tokens);
  }
  if (spec.rule == CHORUS_COMBINE_LINEAR) check_linear(spec);
  return spec;
}

Descriptor::Descriptor(const Spec &spec) : models_(spec.models), desc_(CHORUS_COMBINE_DESC_INIT) {
  for (const chorus_combine_model &model : models_) pointers_.push_back(&model);
  desc_.rule = spec.rule;
  desc_.n_models = static_cast<int32_t>(models_.size());
  desc_.models = pointers_.data();
  desc_.n_tokens = spec.n_tokens;
  desc_.max_rows = spec.max_rows;
  desc_.outputs = spec.outputs;
  desc_.log_probs_dtype = spec.log_probs_dtype;
  desc_.weight_rows = spec.weights_per_row ? 1 : 0;
  desc_.temperature = 1;
}

}  // namespace chorus::combine
