// SPDX-License-Identifier: Apache-2.0
// combine_options.h: setters of the spec, each checked alone; what must fit together is checked at creation.
#include "chorus/combine_options.h"

#include <cmath>
#include <limits>

#include "abi/boundary.h"
#include "abi/combine.h"
#include "abi/vocabulary.h"

using chorus::fail;
using chorus::abi::guarded;
using chorus::abi::require;
using chorus::combine::ModelMap;
using chorus::combine::Spec;

namespace {

Spec &spec_of(chorus_combiner_spec *spec) { return require(spec, "spec")->spec; }

double checked_share(double value, const char *name) {
  if (!(value >= 0 && value <= 1)) fail(CHORUS_INVALID_ARGUMENT, "{} is {}; 0 to 1 is allowed", name, value);
  return value;
}

template <typename Integer>
Integer checked_count(Integer value, Integer least, const char *name) {
  if (value < least) fail(CHORUS_INVALID_ARGUMENT, "{} is {}; {} and above are allowed", name, value, least);
  return value;
}

uint32_t as_flag(int32_t value) { return value != 0 ? 1 : 0; }

void check_map(int64_t n_tokens, const int64_t *offsets, const int32_t *ids, const float *values) {
  if (n_tokens < 1 || n_tokens > std::numeric_limits<int32_t>::max())
    fail(CHORUS_INVALID_ARGUMENT, "n_tokens is {}; 1 to 2^31 - 1 are allowed", n_tokens);
  require(offsets, "offsets");
  if (offsets[0] != 0) fail(CHORUS_INVALID_ARGUMENT, "offsets begins with {}; 0 is needed", offsets[0]);
  for (int64_t u = 0; u < n_tokens; ++u) {
    if (offsets[u + 1] < offsets[u])
      fail(CHORUS_INVALID_ARGUMENT, "offsets falls from {} to {} after token {}", offsets[u], offsets[u + 1], u);
  }
  const int64_t entries = offsets[n_tokens];
  if (entries > 0) require(ids, "ids");
  for (int64_t j = 0; values != nullptr && j < entries; ++j) {
    if (!(values[j] >= 0) || std::isinf(values[j]))
      fail(CHORUS_INVALID_ARGUMENT, "values has {} at {}; finite and >= 0 is needed", values[j], j);
  }
}

}  // namespace

extern "C" {

chorus_status chorus_combiner_spec_set_order(chorus_combiner_spec *spec, double order, chorus_error **error) {
  return guarded(error, [&] {
    Spec &s = spec_of(spec);
    if (std::isnan(order)) fail(CHORUS_INVALID_ARGUMENT, "order is NaN; any other number is allowed");
    s.order = order;
  });
}

chorus_status chorus_combiner_spec_set_trim(chorus_combiner_spec *spec, int32_t trim, chorus_error **error) {
  return guarded(error, [&] { spec_of(spec).trim = checked_count(trim, 0, "trim"); });
}

chorus_status chorus_combiner_spec_set_vote_size(chorus_combiner_spec *spec, int32_t k, chorus_error **error) {
  return guarded(error, [&] { spec_of(spec).vote_k = checked_count(k, 1, "k"); });
}

chorus_status chorus_combiner_spec_set_base_model(chorus_combiner_spec *spec, int32_t model, chorus_error **error) {
  return guarded(error, [&] {
    Spec &s = spec_of(spec);
    if (model != -1) s.model(model);
    s.base_model = model;
  });
}

chorus_status chorus_combiner_spec_set_neighbours(chorus_combiner_spec *spec, chorus_score_kind kind, double weight,
                                                  chorus_error **error) {
  return guarded(error, [&] {
    Spec &s = spec_of(spec);
    if (kind < CHORUS_SCORES_LOGITS || kind > CHORUS_SCORES_PROBS)
      fail(CHORUS_INVALID_ARGUMENT, "kind is {}; logits (0), log-probs (1) and probs (2) are known", kind);
    if (!std::isfinite(static_cast<float>(weight)))
      fail(CHORUS_INVALID_ARGUMENT, "weight is {}; it must be finite, in f32 too", weight);
    s.has_neighbours = true;
    s.neighbours_kind = kind;
    s.neighbours_weight = weight;
  });
}

chorus_status chorus_combiner_spec_set_model_filter(chorus_combiner_spec *spec, int32_t model, int64_t top_k, double top_p,
                                                    double plausibility, chorus_error **error) {
  return guarded(error, [&] {
    chorus_combine_model &m = spec_of(spec).model(model);
    checked_count<int64_t>(top_k, 0, "top_k");
    checked_share(top_p, "top_p");
    checked_share(plausibility, "plausibility");
    m.top_k = top_k;
    m.top_p = top_p;
    m.plausibility = plausibility;
  });
}

chorus_status chorus_combiner_spec_set_model_bias(chorus_combiner_spec *spec, int32_t model, int32_t has_bias,
                                                  chorus_error **error) {
  return guarded(error, [&] { spec_of(spec).model(model).has_bias = as_flag(has_bias); });
}

chorus_status chorus_combiner_spec_set_model_mask(chorus_combiner_spec *spec, int32_t model, int32_t has_mask,
                                                  chorus_error **error) {
  return guarded(error, [&] { spec_of(spec).model(model).has_mask = as_flag(has_mask); });
}

chorus_status chorus_combiner_spec_set_model_map(chorus_combiner_spec *spec, int32_t model, const chorus_vocabulary_map *map,
                                                 chorus_error **error) {
  return guarded(error, [&] {
    Spec &s = spec_of(spec);
    const auto &from = require(map, "map")->map;
    s.set_map(model, {{from.offsets.begin(), from.offsets.end()}, {from.ids.begin(), from.ids.end()}, {}});
  });
}

chorus_status chorus_combiner_spec_set_model_map_arrays(chorus_combiner_spec *spec, int32_t model, int64_t n_tokens,
                                                        const int64_t *offsets, const int32_t *ids, const float *values,
                                                        chorus_error **error) {
  return guarded(error, [&] {
    Spec &s = spec_of(spec);
    s.model(model);
    check_map(n_tokens, offsets, ids, values);
    ModelMap map;
    map.offsets.assign(offsets, offsets + n_tokens + 1);
    if (offsets[n_tokens] > 0) map.ids.assign(ids, ids + offsets[n_tokens]);
    if (values != nullptr) map.values.assign(values, values + offsets[n_tokens]);
    s.set_map(model, std::move(map));
  });
}

chorus_status chorus_combiner_spec_set_model_missing(chorus_combiner_spec *spec, int32_t model, chorus_combine_missing policy,
                                                     int32_t unknown_id, double log_prob, chorus_error **error) {
  return guarded(error, [&] {
    chorus_combine_model &m = spec_of(spec).model(model);
    if (policy < CHORUS_MISSING_BY_RULE || policy > CHORUS_MISSING_NEUTRAL)
      fail(CHORUS_INVALID_ARGUMENT, "policy is {}; CHORUS_MISSING_BY_RULE (0) to CHORUS_MISSING_NEUTRAL (5) are known", policy);
    const bool asks_unknown = policy == CHORUS_MISSING_UNKNOWN || policy == CHORUS_MISSING_UNKNOWN_SHARED;
    if (asks_unknown && (unknown_id < 0 || unknown_id >= m.n_valid))
      fail(CHORUS_INVALID_ARGUMENT, "unknown_id is {}; 0 to {} are the model's tokens", unknown_id, m.n_valid - 1);
    if (policy == CHORUS_MISSING_FLOOR && !(log_prob <= 0))
      fail(CHORUS_INVALID_ARGUMENT, "log_prob is {}; 0 and below are allowed", log_prob);
    m.missing = policy;
    m.unknown_id = unknown_id;
    m.missing_log_prob = log_prob;
  });
}

chorus_status chorus_combiner_spec_set_model_fingerprint(chorus_combiner_spec *spec, int32_t model, uint64_t low, uint64_t high,
                                                         chorus_error **error) {
  return guarded(error, [&] {
    Spec &s = spec_of(spec);
    s.model(model);
    auto &extra = s.extras[model];
    extra.has_fingerprint = true;
    extra.fingerprint_low = low;
    extra.fingerprint_high = high;
  });
}

chorus_status chorus_combiner_spec_set_temperature(chorus_combiner_spec *spec, double temperature, chorus_error **error) {
  return guarded(error, [&] {
    Spec &s = spec_of(spec);
    if (!(temperature >= 0) || std::isinf(static_cast<float>(temperature)))
      fail(CHORUS_INVALID_ARGUMENT, "temperature is {}; finite and >= 0 is needed", temperature);
    s.temperature = temperature;
  });
}

chorus_status chorus_combiner_spec_set_top_k(chorus_combiner_spec *spec, int64_t k, chorus_error **error) {
  return guarded(error, [&] { spec_of(spec).top_k = checked_count<int64_t>(k, 0, "k"); });
}

chorus_status chorus_combiner_spec_set_top_p(chorus_combiner_spec *spec, double p, chorus_error **error) {
  return guarded(error, [&] { spec_of(spec).top_p = checked_share(p, "p"); });
}

chorus_status chorus_combiner_spec_set_min_p(chorus_combiner_spec *spec, double p, chorus_error **error) {
  return guarded(error, [&] { spec_of(spec).min_p = checked_share(p, "p"); });
}

chorus_status chorus_combiner_spec_set_typical_p(chorus_combiner_spec *spec, double p, chorus_error **error) {
  return guarded(error, [&] { spec_of(spec).typical_p = checked_share(p, "p"); });
}

chorus_status chorus_combiner_spec_set_penalties(chorus_combiner_spec *spec, int32_t has_penalties, chorus_error **error) {
  return guarded(error, [&] { spec_of(spec).has_penalties = has_penalties != 0; });
}

chorus_status chorus_combiner_spec_set_top_size(chorus_combiner_spec *spec, int32_t n_top, chorus_error **error) {
  return guarded(error, [&] { spec_of(spec).n_top = checked_count(n_top, 1, "n_top"); });
}

}  // extern "C"
