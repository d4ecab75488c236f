// SPDX-License-Identifier: Apache-2.0
// `chorus fit`: the weights of a mixture that make the targets most likely.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "combine_run.h"

namespace chorus_cli {
namespace {

using Fit = Owned<chorus_fit, chorus_fit_destroy>;

struct FitArguments {
  CombineArguments combine;  // models, targets, rule and kind, as of `chorus combine`
  double held_out = 0, tolerance = 0, ridge = 0;
  int32_t iterations = 0;
};

const Words<chorus_combine_rule> kRules = {{"linear", CHORUS_COMBINE_LINEAR}, {"log-linear", CHORUS_COMBINE_LOG_LINEAR}};
const Words<bool> kKinds = {{"logits", true}, {"log-probs", true}};

const char *status_text(chorus_fit_status status) {
  switch (status) {
    case CHORUS_FIT_CONVERGED: return "converged";
    case CHORUS_FIT_MAX_ITERATIONS: return "ran out of iterations";
    case CHORUS_FIT_STALLED: return "stalled: no step improves any more";
    default: return "running";
  }
}

// Adds rows [first, first + count) of the models' blocks that have a target, as runs of neighbours.
void add_block(chorus_fit *fit, const std::vector<CombineModel> &models, int64_t first, int64_t count,
               std::vector<int64_t> *targets, bool held_out) {
  for (int64_t at = 0; at < count;) {
    int64_t end = at;
    while (end < count && (*targets)[static_cast<size_t>(first + end)] >= 0) ++end;
    if (end == at) {
      ++at;
      continue;
    }
    std::vector<std::unique_ptr<View>> views;
    std::vector<const chorus_tensor *> scores;
    for (const CombineModel &model : models) {
      const int64_t bytes = model.file->width() * (model.file->score_dtype() >> 11);
      views.push_back(std::make_unique<View>(const_cast<char *>(model.block.data()) + at * bytes, model.file->score_dtype(),
                                             end - at, model.file->width()));
      scores.push_back(views.back()->get());
    }
    const View tokens(targets->data() + first + at, CHORUS_I64, end - at);
    chorus_fit_batch batch = CHORUS_FIT_BATCH_INIT;
    batch.rows = end - at;
    batch.scores = scores.data();
    batch.tokens = tokens.get();
    batch.n_valid = models[0].n_valid;
    batch.held_out = held_out ? 1 : 0;
    Call call;
    call(chorus_fit_add(fit, &batch, call.slot()));
    at = end;
  }
}

Fit run_fit(const Context &context, const FitArguments &arguments, std::vector<CombineModel> *models) {
  chorus_fit_options options = CHORUS_FIT_OPTIONS_INIT;
  options.rule = value_of("--rule", arguments.combine.rule, kRules);
  options.n_models = static_cast<int32_t>(models->size());
  options.max_iterations = arguments.iterations;
  options.tolerance = arguments.tolerance;
  options.ridge = arguments.ridge;
  Call call;
  chorus_fit *raw = nullptr;
  call(chorus_fit_create(context.get(), &options, &raw, call.slot()));
  Fit fit(raw);
  std::vector<CombineModel *> read;
  for (CombineModel &model : *models) {
    read.push_back(&model);
    if (model.n_valid != (*models)[0].n_valid) {
      throw CallFailed(fmt::format("{} has {} tokens and {} has {}; weights are fitted over one vocabulary: give --valid",
                                   (*models)[0].file->label(), (*models)[0].n_valid, model.file->label(), model.n_valid),
                       kExitBadInput);
    }
  }
  const int64_t rows = read[0]->file->rows(), block = rows_of_block(read);
  std::vector<int64_t> targets = read_targets(context, arguments.combine, rows, read[0]->n_valid);
  const auto fitted = rows - static_cast<int64_t>(arguments.held_out * static_cast<double>(rows));
  int32_t done = 0;
  while (done == 0) {
    for (int64_t first = 0; first < rows;) {
      throw_if_interrupted();
      const bool held_out = first >= fitted;
      const int64_t count = std::min(block, (held_out ? rows : fitted) - first);
      for (CombineModel *model : read) model->file->read_scores(first, count, &model->block);
      add_block(fit.get(), *models, first, count, &targets, held_out);
      first += count;
    }
    Call step;
    step(chorus_fit_step(fit.get(), &done, step.slot()));
  }
  return fit;
}

Json to_json(const FitArguments &arguments, const std::vector<CombineModel> &models, const chorus_fit_result &result) {
  Json out = {{"rule", arguments.combine.rule},
              {"status", status_text(result.status)},
              {"iterations", result.iterations},
              {"tokens", result.tokens},
              {"tokens_without_probability", result.zero_tokens},
              {"mean_log_prob", result.log_likelihood},
              {"perplexity", std::exp(-result.log_likelihood)},
              {"gap", result.gap}};
  if (result.held_out_tokens > 0) {
    out["held_out"] = {{"tokens", result.held_out_tokens},
                       {"tokens_without_probability", result.held_out_zero_tokens},
                       {"mean_log_prob", number_or_null(result.held_out_log_likelihood)},
                       {"perplexity", number_or_null(std::exp(-result.held_out_log_likelihood))}};
  }
  for (size_t i = 0; i < models.size(); ++i) {
    out["models"].push_back({{"name", models[i].name},
                             {"weight", result.weights[i]},
                             {"standard_error", number_or_null(result.standard_errors[i])},
                             {"at_bound", (result.flags[i] & CHORUS_FIT_AT_BOUND) != 0},
                             {"identified", (result.flags[i] & CHORUS_FIT_NOT_IDENTIFIED) == 0},
                             {"mean_log_prob", number_or_null(result.model_log_likelihoods[i])}});
  }
  return out;
}

void print_text(const FitArguments &arguments, const std::vector<CombineModel> &models, const chorus_fit_result &result) {
  std::vector<std::vector<std::string>> lines;
  std::string weights;
  for (size_t i = 0; i < models.size(); ++i) {
    std::string interval = fmt::format("± {:.4f}", 1.96 * result.standard_errors[i]);
    if ((result.flags[i] & CHORUS_FIT_AT_BOUND) != 0) interval = "at its bound";
    if ((result.flags[i] & CHORUS_FIT_NOT_IDENTIFIED) != 0) interval = "not told from others";
    lines.push_back({printable(models[i].name), fmt::format("{:.6f}", result.weights[i]), interval,
                     fmt::format("{:.6f}", result.model_log_likelihoods[i]),
                     fmt::format("{:.4f}", std::exp(-result.model_log_likelihoods[i]))});
    weights += fmt::format("{}{:.6f}", i > 0 ? "," : "", result.weights[i]);
  }
  lines.push_back({fmt::format("mixture ({})", arguments.combine.rule), "", "", fmt::format("{:.6f}", result.log_likelihood),
                   fmt::format("{:.4f}", std::exp(-result.log_likelihood))});
  if (result.held_out_tokens > 0) {
    lines.push_back({"  on held-out rows", "", "", fmt::format("{:.6f}", result.held_out_log_likelihood),
                     fmt::format("{:.4f}", std::exp(-result.held_out_log_likelihood))});
  }
  print_table({"model", "weight", "95 %", "mean log-prob", "perplexity"}, lines);
  fmt::print("{} after {} steps over {} tokens; the optimum is at most {:.1e} nats per token better\n",
             status_text(result.status), result.iterations, result.tokens, result.gap);
  if (result.zero_tokens > 0) fmt::print("{} tokens without probability are left out\n", result.zero_tokens);
  if (models.size() == 1 && arguments.combine.rule == "log-linear") fmt::print("temperature: {:.6f}\n", 1 / result.weights[0]);
  fmt::print("for chorus combine: --rule {} --weights={}\n", arguments.combine.rule, weights);
}

}  // namespace

void add_fit(CLI::App *program) {
  auto arguments = std::make_shared<FitArguments>();
  CombineArguments &combine = arguments->combine;
  CLI::App *command = program->add_subcommand("fit", "Weights of a mixture from data: those that make the targets most likely");
  add_common(command, &combine.common);
  command->add_option("--model", combine.models, "NAME=FILE or FILE: a safetensors file of score rows; repeat it")->required();
  command->add_option("--targets", combine.targets, "File with the id that came next in each row; negative: left out")->required();
  command->add_option("--rule", combine.rule, "linear or log-linear (default: linear)");
  command->add_option("--kind", combine.kind, "What the files hold: logits or log-probs (default: logits)");
  command->add_option("--valid", combine.valid, "Tokens that exist, where rows are padded; one per model, or one for all");
  command->add_option("--tensor", combine.tensor, "Name of the score tensor, where a file has several");
  command->add_option("--targets-tensor", combine.targets_tensor, "Name of the tensor of targets");
  command->add_option("--held-out", arguments->held_out, "Share of the rows, at the end, that are only measured: 0.2")
      ->check(CLI::Range(0.0, 0.99));
  command->add_option("--tolerance", arguments->tolerance, "Nats per token the optimum may be better (default: 1e-9)");
  command->add_option("--ridge", arguments->ridge, "Log-linear: ridge/2 |w|^2 is taken off (default: 1e-9)");
  command->add_option("--iterations", arguments->iterations, "At most this many steps (default: 1000)");
  command->footer(
      "Linear: w >= 0, sum w = 1. Log-linear: any w, the files are read once per step; one model: its temperature, 1/w.\n"
      "Examples:\n"
      "  chorus fit --model a=a.safetensors --model b=b.safetensors --targets t.safetensors --held-out 0.2\n"
      "  chorus fit --rule log-linear --model a.safetensors --model b.safetensors --targets t.safetensors --json");
  command->callback([arguments] {
    value_of("--rule", arguments->combine.rule, kRules);
    value_of("--kind", arguments->combine.kind, kKinds);
    watch_interrupts();
    const Context context = make_context(arguments->combine.common);
    std::vector<CombineModel> models = open_models(context, arguments->combine);
    const Fit fit = run_fit(context, *arguments, &models);
    chorus_fit_result result = CHORUS_FIT_RESULT_INIT;
    Call call;
    call(chorus_fit_get_result(fit.get(), &result, call.slot()));
    arguments->combine.common.json ? print_json(to_json(*arguments, models, result)) : print_text(*arguments, models, result);
  });
}

}  // namespace chorus_cli
