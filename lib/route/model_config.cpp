// SPDX-License-Identifier: Apache-2.0
// A model's router from its config.json: which preset its model_type is, and which fields of the file say more.
#include <initializer_list>
#include <string>
#include <vector>

#include "route/config_fields.h"
#include "route/presets.h"

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
  const Fields fields{text_config(config)};
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
