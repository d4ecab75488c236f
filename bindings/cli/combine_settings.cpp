// SPDX-License-Identifier: Apache-2.0
// See combine_settings.h. Recipes' missing numbers are those of their originals (chorus/recipes.h).
#include "combine_settings.h"

#include <fmt/format.h>

#include <cmath>

namespace chorus_cli {
namespace {

const Words<chorus_combine_rule> kRules = {
    {"linear", CHORUS_COMBINE_LINEAR},   {"log-linear", CHORUS_COMBINE_LOG_LINEAR},
    {"holder", CHORUS_COMBINE_HOLDER},   {"max", CHORUS_COMBINE_MAX},
    {"min", CHORUS_COMBINE_MIN},         {"median", CHORUS_COMBINE_MEDIAN},
    {"trimmed-mean", CHORUS_COMBINE_TRIMMED_MEAN}, {"vote", CHORUS_COMBINE_VOTE},
    {"rank-vote", CHORUS_COMBINE_RANK_VOTE},       {"condorcet", CHORUS_COMBINE_CONDORCET},
    {"unnormalised", CHORUS_COMBINE_UNNORMALISED}};

using OneNumber = chorus_status (*)(chorus_combiner_spec *, double, chorus_error **);
using TwoNumbers = chorus_status (*)(chorus_combiner_spec *, double, double, chorus_error **);

struct Recipe {
  OneNumber one;
  TwoNumbers two;
  std::vector<double> original;  // NaN: must be given
};

const Words<Recipe> kRecipes = {
    {"dexperts", {nullptr, chorus_combiner_spec_use_dexperts, {2, 0.9}}},
    {"proxy-tuning", {chorus_combiner_spec_use_proxy_tuning, nullptr, {1}}},
    {"contrastive-2022", {nullptr, chorus_combiner_spec_use_contrastive_2022, {0.5, 0.1}}},
    {"contrastive-2023", {nullptr, chorus_combiner_spec_use_contrastive_2023, {0.5, 0.1}}},
    {"guidance", {chorus_combiner_spec_use_guidance, nullptr, {NAN}}},
    {"context-aware", {chorus_combiner_spec_use_context_aware, nullptr, {1}}},
    {"evidence", {chorus_combiner_spec_use_evidence, nullptr, {NAN}}},
    {"shallow-fusion", {chorus_combiner_spec_use_shallow_fusion, nullptr, {1}}}};

void apply_recipe(const std::string &text, chorus_combiner_spec *spec) {
  const size_t colon = text.find(':');
  const Recipe recipe = value_of("--recipe", text.substr(0, colon), kRecipes);
  std::vector<double> numbers = recipe.original;
  if (colon != std::string::npos) {
    const std::vector<double> given = numbers_of("--recipe", text.substr(colon + 1));
    if (given.size() > numbers.size())
      throw CallFailed(fmt::format("--recipe {}: {} numbers; it takes {}", text, given.size(), numbers.size()), kExitUsage);
    std::copy(given.begin(), given.end(), numbers.begin());
  }
  if (std::isnan(numbers[0])) throw CallFailed(fmt::format("--recipe {}: give its strength, {}:2", text, text), kExitUsage);
  Call call;
  call(recipe.one != nullptr ? recipe.one(spec, numbers[0], call.slot()) : recipe.two(spec, numbers[0], numbers[1], call.slot()));
}

}  // namespace

chorus_combine_rule rule_of(const std::string &word) { return value_of("--rule", word, kRules); }

std::vector<double> per_model(const char *option, const std::string &text, size_t models, double missing) {
  if (text.empty()) return std::vector<double>(models, missing);
  std::vector<double> numbers = numbers_of(option, text);
  if (numbers.size() == 1) numbers.assign(models, numbers[0]);
  if (numbers.size() != models) {
    throw CallFailed(fmt::format("{} {}: {} numbers for {} models; give one for each, or one for all", option, text,
                                 numbers.size(), models),
                     kExitUsage);
  }
  return numbers;
}

void add_settings(CLI::App *command, CombineSettings *s) {
  command->add_option("--recipe", s->recipe,
                      "A published method over the models in its order, with its numbers: dexperts:2,0.9, proxy-tuning, "
                      "contrastive-2022, contrastive-2023, guidance:3, context-aware, evidence:0.5, shallow-fusion");
  command->add_option("--order", s->order, "Order of --rule holder: 1 linear, 0 geometric, inf max, -inf min (default: 1)");
  command->add_option("--trim", s->trim, "--rule trimmed-mean: models left out at each end (default: 0)");
  command->add_option("--vote-size", s->vote_size, "--rule rank-vote, condorcet: tokens each model names (default: 10)");
  command->add_option("--model-top-k", s->model_top_k, "Best tokens kept of each model before mixing; one per model, or one for all");
  command->add_option("--model-top-p", s->model_top_p, "Mass kept of each model before mixing");
  command->add_option("--plausibility", s->plausibility, "Tokens kept of each model: p >= this times its best");
  command->add_option("--base", s->base, "The model whose filters decide which tokens the mixture has");
  command->add_option("--temperature", s->temperature, "Of the mixture (default: 1); 0 keeps its best token");
  command->add_option("--top-k", s->top_k, "Best tokens kept of the mixture");
  command->add_option("--top-p", s->top_p, "Mass kept of the mixture");
  command->add_option("--min-p", s->min_p, "Tokens kept of the mixture: p >= this times the best");
  command->add_option("--typical", s->typical, "Mass of locally typical tokens kept of the mixture");
}

std::vector<ModelSettings> model_settings(const CombineSettings &s, size_t models) {
  const std::vector<double> top_k = per_model("--model-top-k", s.model_top_k, models, 0);
  const std::vector<double> top_p = per_model("--model-top-p", s.model_top_p, models, 0);
  const std::vector<double> plausibility = per_model("--plausibility", s.plausibility, models, 0);
  std::vector<ModelSettings> out(models);
  for (size_t i = 0; i < models; ++i) {
    if (!(top_k[i] >= 0 && top_k[i] < 1e9) || top_k[i] != std::floor(top_k[i]))
      throw CallFailed(fmt::format("--model-top-k {}: write whole numbers, 0 for all tokens", s.model_top_k), kExitUsage);
    out[i] = {top_k[i], top_p[i], plausibility[i]};
  }
  return out;
}

void apply_settings(const CombineSettings &s, const std::vector<ModelSettings> &models, int32_t base, chorus_combiner_spec *spec) {
  Call call;
  for (size_t i = 0; i < models.size(); ++i) {
    const ModelSettings &m = models[i];
    call(chorus_combiner_spec_set_model_filter(spec, static_cast<int32_t>(i), static_cast<int64_t>(m.top_k), m.top_p,
                                               m.plausibility, call.slot()));
  }
  if (s.has_recipe()) apply_recipe(s.recipe, spec);
  call(chorus_combiner_spec_set_order(spec, s.order, call.slot()));
  call(chorus_combiner_spec_set_trim(spec, s.trim, call.slot()));
  call(chorus_combiner_spec_set_vote_size(spec, s.vote_size, call.slot()));
  call(chorus_combiner_spec_set_base_model(spec, base, call.slot()));
  call(chorus_combiner_spec_set_temperature(spec, s.temperature, call.slot()));
  call(chorus_combiner_spec_set_top_k(spec, s.top_k, call.slot()));
  call(chorus_combiner_spec_set_top_p(spec, s.top_p, call.slot()));
  call(chorus_combiner_spec_set_min_p(spec, s.min_p, call.slot()));
  call(chorus_combiner_spec_set_typical_p(spec, s.typical, call.slot()));
}

}  // namespace chorus_cli
