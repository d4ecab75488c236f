// SPDX-License-Identifier: Apache-2.0
// A recipe from text through the merger; warnings and progress on standard error, the result on standard output.
#include "recipe_run.h"

#include <fmt/format.h>

#include "progress.h"

namespace chorus_cli {
namespace {

using Spec = Owned<chorus_merger_spec, chorus_merger_spec_destroy>;
using Merger = Owned<chorus_merger, chorus_merger_destroy>;

int32_t show(void *printer, const chorus_merge_progress *progress) {
  static_cast<ProgressPrinter *>(printer)->show(*progress);
  return is_interrupted() ? 1 : 0;
}

Merger make_merger(const chorus_context *context, const RecipeRun &run, const std::string &recipe) {
  Call call;
  chorus_merger_spec *raw_spec = nullptr;
  call(chorus_merger_spec_create(&raw_spec, call.slot()));
  const Spec spec(raw_spec);
  call(chorus_merger_spec_set_recipe(spec.get(), recipe.data(), recipe.size(), "recipe", call.slot()));
  call(chorus_merger_spec_set_output(spec.get(), run.output.c_str(), call.slot()));
  call(chorus_merger_spec_set_memory(spec.get(), run.memory, call.slot()));
  call(chorus_merger_spec_set_replace(spec.get(), run.replace, call.slot()));
  call(chorus_merger_spec_set_command(spec.get(), run.common.command_line.c_str(), call.slot()));
  chorus_merger *raw = nullptr;
  call(chorus_merger_create(context, spec.get(), run.device.c_str(), &raw, call.slot()));
  return Merger(raw);
}

}  // namespace

void add_run_options(CLI::App *command, RecipeRun *run, bool with_plan) {
  add_common(command, &run->common);
  run->common.command_line = command_line();
  if (with_plan) command->add_flag("--plan,--dry-run", run->plan, "Print what would be done, and do nothing");
  command->add_option("--memory", run->memory, "Most memory for buffers, for example 256MiB")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  command->add_flag("--replace", run->replace, "Replace the model in the output folder");
  command->add_option("--device", run->device, "Where to compute")->capture_default_str();
  command->add_option("--progress", run->progress, "On standard error; auto: a bar on a terminal, else lines")
      ->check(CLI::IsMember({"auto", "bar", "lines", "json", "none"}))
      ->capture_default_str();
}

void run_recipe(const RecipeRun &run, const std::string &recipe) {
  const Context context = make_context(run.common);
  const Merger merger = make_merger(context.get(), run, recipe);
  if (run.plan) {
    fmt::print("{}", run.common.json ? chorus_merger_get_plan_json(merger.get()) : chorus_merger_get_plan_text(merger.get()));
    return;
  }
  for (size_t i = 0; i < chorus_merger_get_warning_count(merger.get()); ++i) {
    fmt::print(stderr, "chorus: warning: {}\n", chorus_merger_get_warning(merger.get(), i));
  }
  ProgressPrinter printer(progress_style(run.progress));
  watch_interrupts();
  Call call;
  const chorus_status status = chorus_merger_run(merger.get(), show, &printer, call.slot());
  printer.finish();
  call(status);
  if (run.common.json) {
    print_json({{"output", run.output}, {"recipe", recipe}, {"seconds", printer.seconds()}});
  } else {
    fmt::print("wrote {} in {:.1f} s\n", run.output, printer.seconds());
  }
}

std::string yaml_text(const std::string &text) { return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace chorus_cli
