// SPDX-License-Identifier: Apache-2.0
// A model's router from its config.json: which preset its model_type is, and which fields of the file say more.
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "route/presets.h"
#include "runtime/error.h"

namespace chorus::route {
namespace {

using nlohmann::json;

struct ModelType {
  const char *model_type, *preset;
};

constexpr ModelType kModelTypes[] = {
    {"mixtral", "mixtral"},         {"qwen2_moe", "qwen2-moe"},     {"qwen3_moe", "qwen3-moe"},
    {"qwen3_next", "qwen3-moe"},    {"olmoe", "olmoe"},             {"gpt_oss", "gpt-oss"},
    {"llama4_text", "llama4"},      {"deepseek_v2", "deepseek-v2"}, {"deepseek_v3", "deepseek-v3"},
    {"glm4_moe", "glm-4.5"},        {"kimi_k2", "kimi-k2"},         {"minimax_m2", "minimax-m2"},
    {"switch_transformers", "switch"},
};

// Reads fields; null counts as absent.
struct Fields {
  const json &config;

  const json *find(const char *key) const {
    const auto it = config.find(key);
    return it == config.end() || it->is_null() ? nullptr : &*it;
  }
  std::optional<double> number(const char *key) const {
    const json *value = find(key);
    if (value == nullptr) return std::nullopt;
    if (value->is_boolean()) return value->get<bool>() ? 1.0 : 0.0;
    if (!value->is_number()) fail(CHORUS_DATA_LOSS, "config.json: {} is {}; a number is needed", key, value->type_name());
    return value->get<double>();
  }
  std::optional<int32_t> integer(const char *key) const {
    const auto value = number(key);
    if (!value) return std::nullopt;
    if (!(*value >= 0 && *value <= INT32_MAX) || *value != static_cast<int32_t>(*value)) {
      fail(CHORUS_DATA_LOSS, "config.json: {} is {}; a whole number of 0 to 2^31 - 1 is needed", key, *value);
    }
    return static_cast<int32_t>(*value);
  }
  std::string text(const char *key) const {
    const json *value = find(key);
    if (value == nullptr) return "";
    if (!value->is_string()) fail(CHORUS_DATA_LOSS, "config.json: {} is {}; a string is needed", key, value->type_name());
    return value->get<std::string>();
  }
  // The first that is there; newer files write some of these names for every model.
  int32_t required(std::initializer_list<const char *> keys) const {
    std::string names;
    for (const char *key : keys) {
      if (const auto value = integer(key)) return *value;
      names += (names.empty() ? "" : ", ") + std::string(key);
    }
    fail(CHORUS_DATA_LOSS, "config.json: none of {} is there; the router needs one", names);
  }
};

std::string preset_of(const std::string &model_type) {
  std::string known;
  for (const ModelType &one : kModelTypes) {
    if (model_type == one.model_type) return one.preset;
    known += (known.empty() ? "" : ", ") + std::string(one.model_type);
  }
  fail(CHORUS_UNIMPLEMENTED, "config.json: model_type is '{}'; routers are known of {}", model_type, known);
}

// A field that may only say what the preset says already.
void expect_text(const Fields &fields, const char *key, std::initializer_list<const char *> allowed) {
  const std::string value = fields.text(key);
  if (value.empty()) return;
  std::string known;
  for (const char *one : allowed) {
    if (value == one) return;
    known += (known.empty() ? "" : ", ") + std::string(one);
  }
  fail(CHORUS_UNIMPLEMENTED, "config.json: {} is '{}'; supported for this model: {}", key, value, known);
}

void read_weights(const Fields &fields, const std::string &preset, RouterSpec &spec) {
  const auto normalise = fields.number("norm_topk_prob");
  if (const auto scale = fields.number("routed_scaling_factor")) spec.desc.scale = *scale;
  if (preset == "deepseek-v2") {
    if (normalise.value_or(0) != 0) {
      fail(CHORUS_UNIMPLEMENTED,
           "config.json: norm_topk_prob is true; published codes of this model disagree on it (set the weights by "
           "chorus_router_spec_set_weights)");
    }
    return;
  }
  const bool obeys = preset == "qwen2-moe" || preset == "qwen3-moe" || preset == "olmoe" || preset == "deepseek-v3" ||
                     preset == "glm-4.5" || preset == "kimi-k2";
  if (!normalise || !obeys) return;
  spec.desc.renormalise = *normalise != 0 ? CHORUS_ROUTE_RENORMALISE_SUM : CHORUS_ROUTE_RENORMALISE_NONE;
}

void read_groups(const Fields &fields, const std::string &preset, RouterSpec &spec) {
  if (preset != "deepseek-v2" && preset != "deepseek-v3" && preset != "glm-4.5" && preset != "kimi-k2") return;
  const bool sums = preset != "deepseek-v2";
  expect_text(fields, "scoring_func", {sums ? "sigmoid" : "softmax"});
  if (sums) {
    expect_text(fields, "topk_method", {"noaux_tc"});
  } else {
    expect_text(fields, "topk_method", {"greedy", "group_limited_greedy"});
  }
  const bool greedy = fields.text("topk_method") == "greedy";
  const int32_t groups = greedy ? 0 : fields.integer("n_group").value_or(0);
  spec.set_groups(groups, fields.integer("topk_group").value_or(0),
                  sums ? CHORUS_ROUTE_GROUP_TOP_SUM : CHORUS_ROUTE_GROUP_MAX, sums ? 2 : 0);
}

}  // namespace

RouterSpec spec_of_config(const json &config) {
  if (!config.is_object()) fail(CHORUS_DATA_LOSS, "config.json is no object");
  const auto nested = config.find("text_config");  // models that also see
  const Fields fields{nested != config.end() && nested->is_object() ? *nested : config};
  const std::string preset = preset_of(fields.text("model_type"));
  const int32_t experts = fields.required({"n_routed_experts", "num_experts", "num_local_experts"});
  const int32_t k = preset == "switch" ? 1 : fields.required({"num_experts_per_tok"});
  RouterSpec spec(experts, k);
  apply_preset(spec, preset, /*with_groups=*/false);
  read_groups(fields, preset, spec);
  read_weights(fields, preset, spec);
  if (preset == "minimax-m2") expect_text(fields, "scoring_func", {"sigmoid"});
  if (preset == "switch") {
    if (const auto capacity = fields.integer("expert_capacity")) spec.set_capacity(CHORUS_ROUTE_DROP_BY_POSITION, *capacity);
  }
  return spec;
}

}  // namespace chorus::route
