// SPDX-License-Identifier: Apache-2.0
// `chorus merge RECIPE OUT`: plans a merge, shows the plan or carries it out. Ctrl-C leaves nothing half-written.
#include <fmt/format.h>

#include <cmath>

#include "command.h"
#include "progress.h"

namespace chorus_cli {
namespace {

using Spec = Owned<chorus_merger_spec, chorus_merger_spec_destroy>;
using Merger = Owned<chorus_merger, chorus_merger_destroy>;

struct Arguments {
  Common common;
  std::string recipe, output, device = "auto", numerics = "accurate", progress = "auto";
  uint64_t memory = uint64_t{1} << 30, shard_size = 5'000'000'000, seed = 0;
  int threads = 0;
  bool plan = false, methods = false, replace = false, resume = false;
};

struct Reporter {
  ProgressPrinter printer;
  static int32_t show(void *self, const chorus_merge_progress *progress) {
    static_cast<Reporter *>(self)->printer.show(*progress);
    return is_interrupted() ? 1 : 0;
  }
};

Json default_of(const chorus_merge_parameter_info &info) {
  if (std::isnan(info.default_value)) return Json();
  if (std::string_view(info.type) == "boolean") return Json(info.default_value != 0);
  return Json(info.default_value);
}

Json parameters_of(size_t method, uint64_t count) {
  Json list = Json::array();
  for (uint64_t i = 0; i < count; ++i) {
    chorus_merge_parameter_info info = CHORUS_MERGE_PARAMETER_INFO_INIT;
    Call call;
    call(chorus_merge_get_parameter(method, i, &info, call.slot()));
    list.push_back({{"name", info.name},
                    {"type", info.type},
                    {"default", default_of(info)},
                    {"minimum", std::isinf(info.minimum) ? Json() : Json(info.minimum)},
                    {"maximum", std::isinf(info.maximum) ? Json() : Json(info.maximum)},
                    {"required", info.is_required != 0},
                    {"per_model", info.is_per_model != 0},
                    {"doc", info.doc}});
  }
  return list;
}

void print_methods(bool json) {
  Json list = Json::array();
  for (size_t i = 0; i < chorus_merge_method_count(); ++i) {
    chorus_merge_method_info info = CHORUS_MERGE_METHOD_INFO_INIT;
    Call call;
    call(chorus_merge_get_method(i, &info, call.slot()));
    list.push_back({{"name", info.name},
                    {"summary", info.summary},
                    {"needs_base", info.needs_base != 0},
                    {"parameters", parameters_of(i, info.parameter_count)}});
  }
  if (json) return print_json(list);
  for (const Json &method : list) {
    fmt::print("{}: {}\n", method["name"].get<std::string>(), method["summary"].get<std::string>());
    for (const Json &parameter : method["parameters"]) {
      const std::string fallback = parameter["required"].get<bool>()      ? "required"
                                   : parameter["default"].is_null()        ? "optional"
                                                                           : "default " + parameter["default"].dump();
      fmt::print("  {:<18} {}{}; {}\n", parameter["name"].get<std::string>(), parameter["doc"].get<std::string>(),
                 parameter["per_model"].get<bool>() ? " (per model)" : "", fallback);
    }
  }
}

Spec make_spec(const Arguments &arguments) {
  Call call;
  chorus_merger_spec *raw = nullptr;
  call(chorus_merger_spec_create(&raw, call.slot()));
  Spec spec(raw);
  call(chorus_merger_spec_set_recipe_file(spec.get(), arguments.recipe.c_str(), call.slot()));
  if (!arguments.output.empty()) call(chorus_merger_spec_set_output(spec.get(), arguments.output.c_str(), call.slot()));
  call(chorus_merger_spec_set_memory(spec.get(), arguments.memory, call.slot()));
  call(chorus_merger_spec_set_max_shard_bytes(spec.get(), arguments.shard_size, call.slot()));
  call(chorus_merger_spec_set_numerics(
      spec.get(), arguments.numerics == "mergekit" ? CHORUS_NUMERICS_MERGEKIT : CHORUS_NUMERICS_ACCURATE, call.slot()));
  call(chorus_merger_spec_set_seed(spec.get(), arguments.seed, call.slot()));
  call(chorus_merger_spec_set_replace(spec.get(), arguments.replace, call.slot()));
  call(chorus_merger_spec_set_resume(spec.get(), arguments.resume, call.slot()));
  call(chorus_merger_spec_set_command(spec.get(), arguments.common.command_line.c_str(), call.slot()));
  return spec;
}

void run_merge(const chorus_merger *merger, const Arguments &arguments) {
  Reporter reporter{ProgressPrinter(progress_style(arguments.progress))};
  watch_interrupts();
  Call call;
  const chorus_status status = chorus_merger_run(merger, Reporter::show, &reporter, call.slot());
  reporter.printer.finish();
  call(status);
  chorus_merge_plan plan = CHORUS_MERGE_PLAN_INIT;
  call(chorus_merger_get_plan(merger, &plan, call.slot()));
  const double seconds = reporter.printer.seconds();
  if (arguments.common.json) {
    print_json({{"output", arguments.output},
                {"tensors", plan.tensor_count},
                {"bytes_read", plan.bytes_to_read},
                {"bytes_written", plan.bytes_to_write},
                {"seconds", seconds}});
  } else {
    fmt::print("wrote {}: {} tensors, {} in {:.1f} s\n", arguments.output, plan.tensor_count, human_bytes(plan.bytes_to_write), seconds);
  }
}

void merge(Arguments arguments) {
  if (arguments.methods) return print_methods(arguments.common.json);
  if (arguments.recipe.empty()) throw CallFailed("RECIPE is missing; see chorus merge --help", kExitUsage);
  if (arguments.output.empty() && !arguments.plan) {
    throw CallFailed("OUT is missing: the folder to write to; or ask for --plan alone", kExitUsage);
  }
  if (arguments.threads > 0) arguments.common.options.push_back(fmt::format("threads={}", arguments.threads));
  const Context context = make_context(arguments.common);
  const Spec spec = make_spec(arguments);
  Call call;
  chorus_merger *raw = nullptr;
  call(chorus_merger_create(context.get(), spec.get(), arguments.device.c_str(), &raw, call.slot()));
  const Merger merger(raw);
  if (arguments.plan) {
    fmt::print("{}", arguments.common.json ? chorus_merger_get_plan_json(merger.get()) : chorus_merger_get_plan_text(merger.get()));
    return;
  }
  for (size_t i = 0; i < chorus_merger_get_warning_count(merger.get()); ++i) {
    fmt::print(stderr, "chorus: warning: {}\n", chorus_merger_get_warning(merger.get(), i));
  }
  run_merge(merger.get(), arguments);
}

}  // namespace

void add_merge(CLI::App *program) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App *command = program->add_subcommand("merge", "Merge the weights of models by a mergekit recipe");
  add_common(command, &arguments->common);
  arguments->common.command_line = command_line();
  command->add_option("RECIPE", arguments->recipe, "YAML file");
  command->add_option("OUT", arguments->output, "Folder for the merged model: new, or empty");
  command->add_flag("--plan,--dry-run", arguments->plan, "Print what would be done, and do nothing");
  command->add_flag("--methods", arguments->methods, "Print the merge methods and their parameters");
  command->add_option("--memory", arguments->memory, "Most memory for buffers, for example 256MiB")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  command->add_option("--threads", arguments->threads, "Threads; 0: all the process may use")->check(CLI::Range(0, 1024));
  command->add_option("--shard-size", arguments->shard_size, "Largest file in bytes, for example 5GB; 0: one file")
      ->transform(CLI::AsSizeValue(true))
      ->capture_default_str();
  command->add_option("--seed", arguments->seed, "Of the random choices of dare_* and della*")->capture_default_str();
  command->add_flag("--replace", arguments->replace, "Replace the model in OUT");
  command->add_flag("--resume", arguments->resume, "Take up what a killed run into OUT left; keep it when interrupted again");
  command->add_option("--device", arguments->device, "Where to compute")->capture_default_str();
  command->add_option("--numerics", arguments->numerics, "accurate, or mergekit for its rounding")
      ->check(CLI::IsMember({"accurate", "mergekit"}))
      ->capture_default_str();
  command->add_option("--progress", arguments->progress, "On standard error; auto: a bar on a terminal, else lines")
      ->check(CLI::IsMember({"auto", "bar", "lines", "json", "none"}))
      ->capture_default_str();
  command->footer(
      "Models in the recipe are folders, or org/name in the Hugging Face cache. Nothing is downloaded.\n"
      "Examples:\n  chorus merge recipe.yml merged\n  chorus merge recipe.yml merged --plan\n"
      "  chorus merge recipe.yml merged --memory 256MiB --threads 2 --progress json\n  chorus merge --methods");
  command->callback([arguments] { merge(*arguments); });
}

}  // namespace chorus_cli
