// SPDX-License-Identifier: Apache-2.0
// The table of presets. Facts: papers and the models' code; where versions of a model differ, its largest (DeepSeek-V2, -V3).
#include "route/presets.h"

#include <iterator>
#include <string>
#include <vector>

#include "runtime/error.h"
#include "runtime/nearest.h"

namespace chorus::route {
namespace {

constexpr auto kSoftmax = CHORUS_ROUTE_SOFTMAX, kSigmoid = CHORUS_ROUTE_SIGMOID;
constexpr auto kScoreFirst = CHORUS_ROUTE_SCORE_THEN_TOPK, kTopkFirst = CHORUS_ROUTE_TOPK_THEN_SCORE;
constexpr auto kNone = CHORUS_ROUTE_RENORMALISE_NONE, kSum = CHORUS_ROUTE_RENORMALISE_SUM;
constexpr auto kTokens = CHORUS_ROUTE_TOKENS_CHOOSE, kExperts = CHORUS_ROUTE_EXPERTS_CHOOSE,
               kRandomSecond = CHORUS_ROUTE_RANDOM_SECOND;
constexpr auto kKeep = CHORUS_ROUTE_DROP_NONE, kByPosition = CHORUS_ROUTE_DROP_BY_POSITION,
               kByChoice = CHORUS_ROUTE_DROP_BY_CHOICE;

struct Groups {
  int32_t count, kept;
  chorus_route_group_score score;
  int32_t top;
};
constexpr Groups kNoGroups = {0, 0, CHORUS_ROUTE_GROUP_MAX, 0};
constexpr Groups kBestOfGroup = {8, 3, CHORUS_ROUTE_GROUP_MAX, 0};      // DeepSeek-V2
constexpr Groups kTopTwoOfGroup = {8, 4, CHORUS_ROUTE_GROUP_TOP_SUM, 2};  // DeepSeek-V3

struct Preset {
  const char *name;
  chorus_route_score score;
  chorus_route_order order;
  uint32_t has_bias;
  Groups groups;
  chorus_route_renormalise renormalise;
  double epsilon, scale;
  chorus_route_selection selection;
  chorus_route_drop drop;
  double capacity_factor;
  uint32_t weight_before;
  int32_t k;  // the one it is for; 0: any
};

constexpr Preset kPresets[] = {
    {"mixtral", kSoftmax, kScoreFirst, 0, kNoGroups, kSum, 0, 1, kTokens, kKeep, 0, 0, 0},
    {"qwen2-moe", kSoftmax, kScoreFirst, 0, kNoGroups, kNone, 0, 1, kTokens, kKeep, 0, 0, 0},
    {"qwen3-moe", kSoftmax, kScoreFirst, 0, kNoGroups, kSum, 0, 1, kTokens, kKeep, 0, 0, 0},
    {"olmoe", kSoftmax, kScoreFirst, 0, kNoGroups, kNone, 0, 1, kTokens, kKeep, 0, 0, 0},
    {"gpt-oss", kSoftmax, kTopkFirst, 0, kNoGroups, kNone, 0, 1, kTokens, kKeep, 0, 0, 0},
    {"llama4", kSigmoid, kTopkFirst, 0, kNoGroups, kNone, 0, 1, kTokens, kKeep, 0, 1, 0},
    {"deepseek-v2", kSoftmax, kScoreFirst, 0, kBestOfGroup, kNone, 0, 16, kTokens, kKeep, 0, 0, 0},
    {"deepseek-v3", kSigmoid, kScoreFirst, 1, kTopTwoOfGroup, kSum, 1e-20, 2.5, kTokens, kKeep, 0, 0, 0},
    {"glm-4.5", kSigmoid, kScoreFirst, 1, kNoGroups, kSum, 1e-20, 2.5, kTokens, kKeep, 0, 0, 0},
    {"kimi-k2", kSigmoid, kScoreFirst, 1, kNoGroups, kSum, 1e-20, 2.827, kTokens, kKeep, 0, 0, 0},
    {"minimax-m2", kSigmoid, kScoreFirst, 1, kNoGroups, kSum, 0, 1, kTokens, kKeep, 0, 0, 0},
    {"switch", kSoftmax, kScoreFirst, 0, kNoGroups, kNone, 0, 1, kTokens, kByPosition, 1.25, 0, 1},
    {"gshard", kSoftmax, kScoreFirst, 0, kNoGroups, kSum, 1e-9, 1, kRandomSecond, kByChoice, 1, 0, 2},
    {"expert-choice", kSoftmax, kScoreFirst, 0, kNoGroups, kNone, 0, 1, kExperts, kKeep, 1, 0, 0},
};

const Preset &find_preset(std::string_view name) {
  std::vector<std::string> names;
  for (const Preset &preset : kPresets) {
    if (name == preset.name) return preset;
    names.emplace_back(preset.name);
  }
  fail(CHORUS_INVALID_ARGUMENT, "no preset '{}'{}; there are: {}", name, did_you_mean(name, names), fmt::join(names, ", "));
}

}  // namespace

const char *preset_name(size_t index) { return index < std::size(kPresets) ? kPresets[index].name : nullptr; }

void apply_preset(RouterSpec &spec, std::string_view name, bool with_groups) {
  const Preset &preset = find_preset(name);
  if (preset.k != 0 && spec.desc.k != preset.k) {
    fail(CHORUS_INVALID_ARGUMENT, "k is {}; preset '{}' is for k = {}", spec.desc.k, name, preset.k);
  }
  RouterSpec changed(spec.desc.n_experts, spec.desc.k);
  chorus_route_desc &d = changed.desc;
  const Groups &groups = with_groups ? preset.groups : kNoGroups;
  changed.set_groups(groups.count, groups.kept, groups.score, groups.top);
  if (preset.capacity_factor > 0) changed.set_capacity_factor(preset.drop, preset.capacity_factor, 0, 0);
  d.max_tokens = spec.desc.max_tokens;
  d.logits_dtype = spec.desc.logits_dtype;
  d.ids_dtype = spec.desc.ids_dtype;
  d.weights_dtype = spec.desc.weights_dtype;
  d.outputs = spec.desc.outputs;
  d.block = spec.desc.block;
  d.score = preset.score;
  d.order = preset.order;
  d.has_bias = preset.has_bias;
  d.renormalise = preset.renormalise;
  d.epsilon = preset.epsilon;
  d.scale = preset.scale;
  d.selection = preset.selection;
  d.weight_before = preset.weight_before;
  spec = std::move(changed);
}

}  // namespace chorus::route
