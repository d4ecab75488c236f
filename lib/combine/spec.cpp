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

const char *rule_name(chorus_combine_rule rule) {
  constexpr const char *kNames[] = {"a linear mixture", "the log-linear rule", "a Hölder mean", "the maximum", "the minimum", "the median", "a trimmed mean",
                                    "a vote", "a rank vote", "the unnormalised rule", "a Condorcet vote"};
  return kNames[rule];
}

bool takes_no_negative_weight(chorus_combine_rule rule) {
  return rule != CHORUS_COMBINE_LOG_LINEAR && rule != CHORUS_COMBINE_UNNORMALISED;
}

void check_weights(const Spec &spec) {
  double sum = spec.has_neighbours ? spec.neighbours_weight : 0;
  if (sum < 0) fail(CHORUS_INVALID_ARGUMENT, "the neighbours have weight {}; rule {} takes weights >= 0", sum, spec.rule);
  for (size_t i = 0; i < spec.models.size(); ++i) {
    if (spec.models[i].weight < 0) {
      fail(CHORUS_INVALID_ARGUMENT, "model {} has weight {}; {} takes weights >= 0", i,
           spec.models[i].weight, rule_name(spec.rule));
    }
    sum += spec.models[i].weight;
  }
  if (sum == 0) fail(CHORUS_INVALID_ARGUMENT, "all weights of {} are 0; at least one must be positive", rule_name(spec.rule));
}

// Models that share ids must agree on what they mean.
void check_fingerprints(const Spec &spec) {
  size_t first = spec.models.size();
  for (size_t i = 0; i < spec.models.size(); ++i) {
    const ModelExtra &extra = spec.extras[i];
    if (!extra.has_fingerprint || extra.map != nullptr) continue;
    if (first == spec.models.size()) first = i;
    const ModelExtra &other = spec.extras[first];
    if (extra.fingerprint_low == other.fingerprint_low && extra.fingerprint_high == other.fingerprint_high) continue;
    fail(CHORUS_INVALID_ARGUMENT,
         "models {} and {} have different vocabularies (fingerprints {:016x}{:016x} and {:016x}{:016x}) and no map; the same id is not "
         "the same token: chorus_combiner_spec_set_model_map()",
         first, i, other.fingerprint_high, other.fingerprint_low, extra.fingerprint_high, extra.fingerprint_low);
  }
}

void check_rule(const Spec &spec) {
  const auto members = static_cast<int32_t>(spec.models.size()) + (spec.has_neighbours ? 1 : 0);
  if (spec.rule == CHORUS_COMBINE_TRIMMED_MEAN && 2 * int64_t{spec.trim} >= members)
    fail(CHORUS_INVALID_ARGUMENT, "trim is {}; of {} models at most {} may be left out on each side", spec.trim, members, (members - 1) / 2);
  if (spec.base_model >= static_cast<int32_t>(spec.models.size()))
    fail(CHORUS_INVALID_ARGUMENT, "base_model is {}; there are {} models", spec.base_model, spec.models.size());
  if (spec.base_model >= 0 && spec.models[spec.base_model].weight == 0)
    fail(CHORUS_INVALID_ARGUMENT, "model {} decides the support and has weight 0, so it would never be read", spec.base_model);
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
  extras.emplace_back();
}

chorus_combine_model &Spec::model(int32_t index) {
  if (index < 0 || index >= static_cast<int32_t>(models.size()))
    fail(CHORUS_INVALID_ARGUMENT, "model is {}; the spec has {} models", index, models.size());
  return models[index];
}

void Spec::set_map(int32_t index, ModelMap map) {
  const chorus_combine_model &of = model(index);
  for (const int32_t id : map.ids) {
    if (id < 0 || id >= of.n_logits)
      fail(CHORUS_INVALID_ARGUMENT, "the map names token {}; model {} has n_logits {}", id, index, of.n_logits);
  }
  extras[index].map = std::make_shared<const ModelMap>(std::move(map));
}

Spec completed(Spec spec) {
  if (spec.models.empty()) fail(CHORUS_INVALID_ARGUMENT, "spec has no model; chorus_combiner_spec_add_model() adds one");
  int64_t largest = 0, mapped = 0;
  for (size_t i = 0; i < spec.models.size(); ++i) {
    const ModelMap *map = spec.extras[i].map.get();
    if (map == nullptr) largest = std::max(largest, spec.models[i].n_valid);
    if (map != nullptr) mapped = map->rows();
  }
  if (spec.n_tokens == 0) spec.n_tokens = mapped > 0 ? mapped : largest;
  for (size_t i = 0; i < spec.models.size(); ++i) {
    const ModelMap *map = spec.extras[i].map.get();
    if (map != nullptr && map->rows() != spec.n_tokens)
      fail(CHORUS_INVALID_ARGUMENT, "the map of model {} has {} output tokens; the vocabulary size is {}", i, map->rows(), spec.n_tokens);
  }
  if (largest > spec.n_tokens) {
    fail(CHORUS_INVALID_ARGUMENT, "a model has {} valid tokens; the vocabulary size is {}", largest, spec.n_tokens);
  }
  if (takes_no_negative_weight(spec.rule)) check_weights(spec);
  check_fingerprints(spec);
  check_rule(spec);
  return spec;
}

void Descriptor::add_map(const ModelMap &map, MapTensors &tensors, chorus_combine_model &model) {
  tensors.rows = map.rows() + 1;
  tensors.entries = static_cast<int64_t>(map.ids.size());
  const auto view = [](const void *data, uint32_t code, uint32_t bits, const int64_t *size) {
    chorus_tensor t = CHORUS_TENSOR_INIT;
    t.data = const_cast<void *>(data);
    t.size_bytes = static_cast<uint64_t>(*size) * bits / 8;
    t.dtype_code = static_cast<decltype(t.dtype_code)>(code);
    t.dtype_bits = static_cast<decltype(t.dtype_bits)>(bits);
    t.dtype_lanes = 1;
    t.ndim = 1;
    t.shape = size;
    return t;
  };
  tensors.offsets = view(map.offsets.data(), CHORUS_DTYPE_CODE_INT, 64, &tensors.rows);
  tensors.ids = view(map.ids.data(), CHORUS_DTYPE_CODE_INT, 32, &tensors.entries);
  tensors.values = view(map.values.data(), CHORUS_DTYPE_CODE_FLOAT, 32, &tensors.entries);
  model.map_offsets = &tensors.offsets;
  model.map_ids = &tensors.ids;
  if (!map.values.empty()) model.map_values = &tensors.values;
}

Descriptor::Descriptor(const Spec &spec) : models_(spec.models), maps_(spec.models.size()), desc_(CHORUS_COMBINE_DESC_INIT) {
  for (size_t i = 0; i < models_.size(); ++i) {
    if (spec.extras[i].map != nullptr) add_map(*spec.extras[i].map, maps_[i], models_[i]);
  }
  for (const chorus_combine_model &model : models_) pointers_.push_back(&model);
  desc_.rule = spec.rule;
  desc_.n_models = static_cast<int32_t>(models_.size());
  desc_.models = pointers_.data();
  desc_.n_tokens = spec.n_tokens;
  desc_.max_rows = spec.max_rows;
  desc_.outputs = spec.outputs;
  desc_.log_probs_dtype = spec.log_probs_dtype;
  desc_.weight_rows = spec.weights_per_row ? 1 : 0;
  desc_.base_model = static_cast<uint32_t>(spec.base_model + 1);
  desc_.order = spec.order;
  desc_.trim = spec.rule == CHORUS_COMBINE_TRIMMED_MEAN ? spec.trim : 0;
  desc_.vote_k = spec.vote_k;
  desc_.temperature = spec.temperature;
  desc_.top_p = spec.top_p;
  desc_.min_p = spec.min_p;
  desc_.typical_p = spec.typical_p;
  desc_.top_k = spec.top_k;
  desc_.has_penalties = spec.has_penalties ? 1 : 0;
  desc_.has_neighbours = spec.has_neighbours ? 1 : 0;
  desc_.neighbours_kind = spec.neighbours_kind;
  desc_.neighbours_weight = spec.neighbours_weight;
  desc_.n_top = spec.n_top;
}

}  // namespace chorus::combine
