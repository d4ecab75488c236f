// SPDX-License-Identifier: Apache-2.0
// `chorus combine`: mixes files of scores and says how well each model, and the mixture, predicts the targets.
#include <fmt/format.h>

#include "combine_run.h"
#include "report.h"

namespace chorus_cli {
namespace {

std::string status_text(int32_t status) {
  constexpr std::pair<int32_t, const char *> kNames[] = {
      {CHORUS_ROW_EMPTY_SUPPORT, "EMPTY_SUPPORT"}, {CHORUS_ROW_NAN, "NAN"},
      {CHORUS_ROW_MODEL_EMPTY, "MODEL_EMPTY"},     {CHORUS_ROW_INFINITE, "INFINITE"},
      {CHORUS_ROW_BAD_WEIGHT, "BAD_WEIGHT"}};
  std::string text;
  for (const auto &[bit, name] : kNames) {
    if ((status & bit) != 0) text += (text.empty() ? "" : "|") + std::string(name);
  }
  return text.empty() ? "OK" : text;
}

Json rows_of(const std::vector<CombineModel> &models, const CombineResult &result) {
  Json rows = Json::array();
  for (const CombinedRow &item : result.row_results) {
    Json row = {{"row", item.row}, {"argmax", item.argmax}, {"status", status_text(item.status)}};
    if (item.target >= 0) {
      row["target"] = item.target;
      row["log_prob"] = number_or_null(item.log_prob);
      size_t at = 0;
      for (const CombineModel &model : models) {
        if (model.file != nullptr) row["models"].push_back(number_or_null(item.model_log_probs[at++]));
      }
    }
    rows.push_back(row);
  }
  return rows;
}

const std::string &mixing(const CombineArguments &arguments) {
  return arguments.settings.has_recipe() ? arguments.settings.recipe : arguments.rule;
}

Json to_json(const CombineArguments &arguments, const std::vector<CombineModel> &models, const CombineResult &result) {
  const bool recipe = arguments.settings.has_recipe();
  Json out = {{recipe ? "recipe" : "rule", mixing(arguments)}, {"rows", result.rows}, {"rows_without_distribution", result.bad_rows}};
  const bool scored = !arguments.targets.empty();
  for (size_t i = 0; i < models.size(); ++i) {
    const CombineModel &model = models[i];
    Json item = {{"name", model.name}, {"path", model.path}, {"weight", recipe ? Json() : Json(model.weight)}, {"temperature", model.temperature},
                 {"read", model.file != nullptr}};
    if (scored) {
      item["mean_log_prob"] = number_or_null(result.models[i].mean());
      item["perplexity"] = number_or_null(result.models[i].perplexity());
    }
    out["models"].push_back(item);
  }
  if (scored) {
    out["scored_rows"] = result.mixture.rows;
    out["mixture"] = {{"mean_log_prob", number_or_null(result.mixture.mean())},
                      {"perplexity", number_or_null(result.mixture.perplexity())}};
  }
  if (arguments.rows) out["row_results"] = rows_of(models, result);
  if (!arguments.output.empty()) out["output"] = arguments.output;
  if (!arguments.report.empty()) out["report"] = arguments.report;
  return out;
}

void print_rows(const CombineResult &result) {
  std::vector<std::vector<std::string>> lines;
  for (const CombinedRow &row : result.row_results) {
    const bool scored = row.target >= 0;
    lines.push_back({fmt::format("{}", row.row), scored ? fmt::format("{}", row.target) : "-",
                     scored ? fmt::format("{:.6f}", row.log_prob) : "-", fmt::format("{}", row.argmax),
                     status_text(row.status)});
  }
  print_table({"row", "target", "log-prob", "argmax", "status"}, lines);
  fmt::print("\n");
}

void print_text(const CombineArguments &arguments, const std::vector<CombineModel> &models, const CombineResult &result) {
  if (arguments.rows) print_rows(result);
  const bool scored = !arguments.targets.empty();
  std::vector<std::vector<std::string>> lines;
  const auto add = [&](std::vector<std::string> cells, const Tally &tally, bool read) {
    if (scored) {
      cells.push_back(read ? fmt::format("{:.6f}", tally.mean()) : "not read");
      cells.push_back(read ? fmt::format("{:.4f}", tally.perplexity()) : "");
    }
    lines.push_back(std::move(cells));
  };
  for (size_t i = 0; i < models.size(); ++i) {
    const CombineModel &model = models[i];
    const bool recipe = arguments.settings.has_recipe();
    add({printable(model.name), recipe ? "recipe" : fmt::format("{}", model.weight), fmt::format("{}", model.temperature)}, result.models[i],
        model.file != nullptr);
  }
  add({fmt::format("mixture ({})", printable(mixing(arguments))), "", ""}, result.mixture, true);
  std::vector<std::string> heads = {"model", "weight", "temperature"};
  if (scored) heads.insert(heads.end(), {"mean log-prob", "perplexity"});
  print_table(heads, lines);
  if (scored) fmt::print("{} of {} rows scored\n", result.mixture.rows, result.rows);
  if (result.bad_rows > 0) {
    fmt::print("{} rows have no distribution (NaN or empty support) and are left out; --rows names them\n", result.bad_rows);
  }
  for (const std::string &path : {arguments.output, arguments.report}) {
    if (!path.empty()) fmt::print("written: {}\n", printable(path));
  }
}

}  // namespace

void add_combine(CLI::App *program) {
  auto arguments = std::make_shared<CombineArguments>();
  CLI::App *command = program->add_subcommand("combine", "Mix score files of several models; perplexity of each and of the mixture");
  add_common(command, &arguments->common);
  command->add_option("--model", arguments->models, "NAME=FILE or FILE: a safetensors file of score rows; repeat it")->required();
  command->add_option("--weights", arguments->weights, "One number per model, in their order: 0.7,0.3 (default: 1 each)");
  command->add_option("--temperatures", arguments->temperatures, "One per model, or one for all (default: 1)");
  command->add_option("--valid", arguments->valid, "Tokens that exist, where rows are padded; one per model, or one for all");
  command->add_option("--rule", arguments->rule, "linear, log-linear, holder, max, min, median, trimmed-mean, vote, rank-vote, condorcet or "
                                                   "unnormalised (default: linear)");
  add_settings(command, &arguments->settings);
  command->add_option("--kind", arguments->kind, "What the files hold: logits, log-probs or probs (default: logits)");
  command->add_option("--tensor", arguments->tensor, "Name of the score tensor, where a file has several");
  command->add_option("--targets", arguments->targets, "File with the id that came next in each row; negative: not scored");
  command->add_option("--targets-tensor", arguments->targets_tensor, "Name of the tensor of targets");
  command->add_flag("--rows", arguments->rows, "Print each row: target, its log-prob, argmax, status");
  command->add_option("--output", arguments->output, "New folder for the mixture's log-probs and argmax, as safetensors");
  command->add_flag("--replace", arguments->replace, "Let --output replace what is there");
  command->add_option("--report", arguments->report, "New HTML file: calibration, uncertainty and weight plots; needs --targets");
  command->add_option("--device", arguments->device, "Device that computes (default: auto)");
  command->footer(
      "Linear: p = sum w p / sum w. Log-linear: log p = sum w log p - log Z, any real weight. A model of weight 0 is not read.\n"
      "Examples:\n"
      "  chorus combine --model a=a.safetensors --model b=b.safetensors --weights 0.7,0.3 --targets t.safetensors\n"
      "  chorus combine --rule log-linear --model core=c.st --model good=g.st --model bad=b.st --weights=1,0.5,-0.5 \\\n"
      "                 --targets t.safetensors --json\n"
      "  chorus combine --recipe dexperts:2,0.9 --model base.st --model expert.st --model anti.st --targets t.st\n"
      "  chorus combine --model a.safetensors --model b.safetensors --top-p 0.9 --output mixture");
  command->callback([arguments] {
    if (arguments->targets.empty() && arguments->output.empty() && !arguments->rows) {
      throw CallFailed("nothing to do: give --targets for perplexities, --rows, or --output", kExitUsage);
    }
    check_words(*arguments);
    check_report(*arguments);
    watch_interrupts();
    const Context context = make_context(arguments->common);
    std::vector<CombineModel> models = open_models(context, *arguments);
    const CombineResult result = run_combine(context, *arguments, &models);
    if (!arguments->report.empty()) write_report(context, *arguments, &models);
    arguments->common.json ? print_json(to_json(*arguments, models, result)) : print_text(*arguments, models, result);
  });
}

}  // namespace chorus_cli
