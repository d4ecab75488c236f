// SPDX-License-Identifier: Apache-2.0
// Merges that a command makes a recipe for.
#pragma once
#include "command.h"

namespace chorus_cli {

struct RecipeRun {
  Common common;
  std::string output, device = "auto", progress = "auto";
  uint64_t memory = uint64_t{1} << 30;
  bool replace = false, plan = false;
};
// --device, --memory, --replace, --progress and, where `with_plan`, --plan.
void add_run_options(CLI::App *command, RecipeRun *run, bool with_plan);

// Plans and, unless the plan alone was asked for, carries out the recipe.
void run_recipe(const RecipeRun &run, const std::string &recipe);

// Text as a YAML scalar.
std::string yaml_text(const std::string &text);

}  // namespace chorus_cli
