// SPDX-License-Identifier: Apache-2.0
// `chorus negate MODEL --base BASE --out OUT`: base - scale * (model - base), to unlearn what a fine-tune taught (Ilharco et al. 2023,
// arXiv 2212.04089).
#include <fmt/format.h>

#include "recipe_run.h"

namespace chorus_cli {
namespace {

struct Arguments {
  RecipeRun run;
  std::string model, base;
  double scale = 1;
};

void negate(const Arguments &arguments) {
  run_recipe(arguments.run, fmt::format("merge_method: task_arithmetic\nbase_model: {}\nmodels:\n  - model: {}\n    parameters: {{weight: {}}}\n",
                                        yaml_text(arguments.base), yaml_text(arguments.model), -arguments.scale));
}

}  // namespace

void add_negate(CLI::App *program) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App *command = program->add_subcommand("negate", "Take a fine-tune's changes away from its base: base - scale * (model - base)");
  add_run_options(command, &arguments->run, true);
  command->add_option("MODEL", arguments->model, "The fine-tuned model")->required();
  command->add_option("--base", arguments->base, "What it was tuned from")->required();
  command->add_option("-o,--out", arguments->run.output, "Folder for the result: new, or empty")->required();
  command->add_option("--scale", arguments->scale, "How much of the changes")->capture_default_str();
  command->footer("Example:\n  chorus negate toxic --base base -o detoxified --scale 0.5");
  command->callback([arguments] { negate(*arguments); });
}

}  // namespace chorus_cli
