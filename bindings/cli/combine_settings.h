// SPDX-License-Identifier: Apache-2.0
// Rules, recipes and filters of `chorus combine`, from the command line into a combiner's spec.
#pragma once
#include <string>
#include <vector>

#include "command.h"

namespace chorus_cli {

struct CombineSettings {
  std::string recipe;  // "NAME" or "NAME:number,number"
  double order = 1;
  int32_t trim = 0, vote_size = 10;
  std::string model_top_k, model_top_p, plausibility, base;  // one per model, or one for all
  double temperature = 1, top_p = 0, min_p = 0, typical = 0;
  int64_t top_k = 0;

  bool has_recipe() const { return !recipe.empty(); }
};

// The filter of one model.
struct ModelSettings {
  double top_k = 0, top_p = 0, plausibility = 0;
};

void add_settings(CLI::App *command, CombineSettings *settings);

// The rule that `word` names; a usage error where there is none.
chorus_combine_rule rule_of(const std::string &word);

// Numbers of an option that has one per model, or one for all.
std::vector<double> per_model(const char *option, const std::string &text, size_t models, double missing);

std::vector<ModelSettings> model_settings(const CombineSettings &settings, size_t models);

// Into a spec that has its models. `base` is the index of the model that --base names, or -1.
void apply_settings(const CombineSettings &settings, const std::vector<ModelSettings> &models, int32_t base,
                    chorus_combiner_spec *spec);

}  // namespace chorus_cli
