// SPDX-License-Identifier: Apache-2.0
// Runs the mixture, and each model alone, over the rows of score files, a block of rows at a time.
#include "combine_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

namespace chorus_cli {
namespace {

using CombinerSpec = Owned<chorus_combiner_spec, chorus_combiner_spec_destroy>;

constexpr int64_t kBlockBytes = int64_t{64} << 20;  // of score rows in memory, all models together

const Words<chorus_score_kind> kKinds = {
    {"logits", CHORUS_SCORES_LOGITS}, {"log-probs", CHORUS_SCORES_LOG_PROBS}, {"probs", CHORUS_SCORES_PROBS}};

}  // namespace

Combiner new_combiner(const Context &context, const CombineArguments &arguments, const Wanted &wanted) {
  Call call;
  chorus_combiner_spec *spec = nullptr;
  call(chorus_combiner_spec_create(&spec, call.slot()));
  const CombinerSpec owned(spec);
  const chorus_combine_rule rule = rule_of(arguments.rule);
  call(chorus_combiner_spec_set_rule(spec, wanted.alone ? CHORUS_COMBINE_LINEAR : rule, call.slot()));
  call(chorus_combiner_spec_set_vocabulary_size(spec, wanted.vocabulary, call.slot()));
  call(chorus_combiner_spec_set_max_rows(spec, wanted.max_rows, call.slot()));
  call(chorus_combiner_spec_set_outputs(spec, wanted.outputs, call.slot()));
  for (const CombineModel *model : wanted.models) {
    call(chorus_combiner_spec_add_model(spec, value_of("--kind", arguments.kind, kKinds), model->file->score_dtype(),
                                        model->file->width(), model->n_valid, wanted.alone ? 1 : model->weight,
                                        model->temperature, nullptr, call.slot()));
  }
  if (!wanted.alone) {
    std::vector<ModelSettings> filters;
    int32_t base = -1;
    for (const CombineModel *model : wanted.models) {
      if (model->name == arguments.settings.base) base = static_cast<int32_t>(filters.size());
      filters.push_back(model->filter);
    }
    apply_settings(arguments.settings, filters, base, spec);
  }
  chorus_combiner *combiner = nullptr;
  call(chorus_combiner_create(context.get(), spec, arguments.device.c_str(), &combiner, call.slot()));
  return Combiner(combiner);
}

std::vector<int64_t> read_targets(const Context &context, const CombineArguments &arguments, int64_t rows, int64_t vocabulary) {
  if (arguments.targets.empty()) return {};
  const RowsFile file(context, arguments.targets, arguments.targets_tensor, {"targets", "labels"});
  std::vector<int64_t> targets = file.read_integers();
  if (static_cast<int64_t>(targets.size()) != rows) {
    throw CallFailed(fmt::format("{} has {} ids and the scores have {} rows; one target for each row", file.label(),
                                 targets.size(), rows),
                     kExitBadInput);
  }
  for (size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] >= vocabulary) {
      throw CallFailed(fmt::format("{}: id {} of row {} is outside the vocabulary of {} tokens; a negative id leaves the "
                                   "row out",
                                   file.label(), targets[i], i, vocabulary),
                       kExitBadInput);
    }
    if (targets[i] < 0) targets[i] = -1;
  }
  return targets;
}

void run_block(const Combiner &combiner, const std::vector<CombineModel *> &models, int64_t count,
               std::vector<int64_t> *targets, Outputs *outputs, std::vector<float> *weights) {
  std::vector<std::unique_ptr<View>> views;
  std::vector<const chorus_tensor *> scores;
  for (CombineModel *model : models) {
    views.push_back(std::make_unique<View>(model->block.data(), model->file->score_dtype(), count, model->file->width()));
    scores.push_back(views.back()->get());
  }
  chorus_combine_in in = CHORUS_COMBINE_IN_INIT;
  in.rows = count;
  in.scores = scores.data();
  const View tokens(targets->data(), CHORUS_I64, count, 1);
  in.tokens = tokens.get();
  std::unique_ptr<View> weight_view;
  if (weights != nullptr) {
    weight_view = std::make_unique<View>(weights->data(), CHORUS_F32, static_cast<int64_t>(weights->size()));
    in.weights = weight_view->get();
  }
  const View given(outputs->token_log_probs.data(), CHORUS_F32, count, 1);
  const View argmax(outputs->argmax.data(), CHORUS_I32, count), status(outputs->status.data(), CHORUS_I32, count);
  const int64_t vocabulary = static_cast<int64_t>(outputs->log_probs.size() / std::max<size_t>(1, targets->size()));
  const View log_probs(outputs->log_probs.data(), CHORUS_F32, count, vocabulary);
  chorus_combine_out out = CHORUS_COMBINE_OUT_INIT;
  if (!outputs->token_log_probs.empty()) out.token_log_probs = given.get();
  if (!outputs->argmax.empty()) out.argmax = argmax.get();
  if (!outputs->status.empty()) out.status = status.get();
  if (!outputs->log_probs.empty()) out.log_probs = log_probs.get();
  Call call;
  call(chorus_combiner_run(combiner.get(), &in, &out, nullptr, call.slot()));
}

int64_t rows_of_block(const std::vector<CombineModel *> &models) {
  int64_t row_bytes = 4;
  for (const CombineModel *model : models) row_bytes += model->file->width() * 8;
  return std::clamp<int64_t>(kBlockBytes / row_bytes, 1, std::max<int64_t>(1, models[0]->file->rows()));
}

namespace {

// The rows of one block into the result. Every perplexity is over the same rows, so that they compare: those with a target
// and with a distribution of the mixture.
void tally_block(int64_t first, int64_t count, const std::vector<int64_t> &targets, const Outputs &mixture,
                 const std::vector<Outputs> &alone, const std::vector<size_t> &places, bool keep, CombineResult *result) {
  constexpr int32_t kBad = CHORUS_ROW_NAN | CHORUS_ROW_EMPTY_SUPPORT | CHORUS_ROW_BAD_WEIGHT;
  for (int64_t i = 0; i < count; ++i) {
    const size_t at = static_cast<size_t>(i);
    CombinedRow row;
    row.row = first + i;
    row.argmax = mixture.argmax[at];
    row.status = mixture.status[at];
    const bool bad = (row.status & kBad) != 0;
    if (bad) ++result->bad_rows;
    if (!targets.empty()) row.target = targets[static_cast<size_t>(row.row)];
    if (row.target >= 0) {
      row.log_prob = mixture.token_log_probs[at];
      for (const Outputs &model : alone) row.model_log_probs.push_back(model.token_log_probs[at]);
    }
    if (row.target >= 0 && !bad) {
      result->mixture.add(row.log_prob);
      for (size_t m = 0; m < alone.size(); ++m) result->models[places[m]].add(row.model_log_probs[m]);
    }
    if (keep) result->row_results.push_back(std::move(row));
  }
}

}  // namespace

void check_words(const CombineArguments &arguments) {
  rule_of(arguments.rule);
  if (arguments.settings.has_recipe() && !arguments.weights.empty())
    throw CallFailed("--weights and --recipe: a recipe gives the weights; leave one out", kExitUsage);
  if (arguments.settings.has_recipe() && !arguments.report.empty())
    throw CallFailed("--report and --recipe: the report plots weights, which a recipe fixes; leave one out", kExitUsage);
  value_of("--kind", arguments.kind, kKinds);
}

std::vector<CombineModel> open_models(const Context &context, const CombineArguments &arguments) {
  const size_t count = arguments.models.size();
  const std::vector<double> weights = per_model("--weights", arguments.weights, count, 1);
  const std::vector<double> temperatures = per_model("--temperatures", arguments.temperatures, count, 1);
  const std::vector<double> valid = per_model("--valid", arguments.valid, count, 0);
  const std::vector<ModelSettings> filters = model_settings(arguments.settings, count);
  std::vector<CombineModel> models(count);
  const CombineModel *first = nullptr;
  bool has_base = arguments.settings.base.empty();
  for (size_t i = 0; i < count; ++i) {
    CombineModel &model = models[i];
    const std::string &text = arguments.models[i];
    const size_t equals = text.find('=');
    model.path = equals == std::string::npos ? text : text.substr(equals + 1);
    model.name = equals == std::string::npos ? "" : text.substr(0, equals);
    if (model.name.empty()) model.name = std::filesystem::path(model.path).stem().string();
    model.weight = weights[i];
    model.temperature = temperatures[i];
    model.filter = filters[i];
    has_base |= model.name == arguments.settings.base && model.weight != 0;
    if (model.weight == 0) continue;
    model.file = std::make_unique<RowsFile>(context, model.path, arguments.tensor,
                                            std::vector<std::string>{"logits", "scores", "log_probs", "probs"});
    if (valid[i] != std::floor(valid[i]) || !(valid[i] >= 0 && valid[i] <= static_cast<double>(model.file->width()))) {
      throw CallFailed(fmt::format("--valid {}: {} has rows of {} tokens; write a whole number from 1 to that",
                                   arguments.valid, model.file->label(), model.file->width()),
                       kExitBadInput);
    }
    model.n_valid = valid[i] == 0 ? model.file->width() : static_cast<int64_t>(valid[i]);
    model.file->score_dtype();  // refuses what are no scores
    if (first == nullptr) first = &model;
    if (model.file->rows() != first->file->rows()) {
      throw CallFailed(fmt::format("{} has {} rows and {} has {}; every model scores the same rows", model.file->label(),
                                   model.file->rows(), first->file->label(), first->file->rows()),
                       kExitBadInput);
    }
  }
  if (!has_base)
    throw CallFailed(fmt::format("--base {}: no model of a weight other than 0 has that name", printable(arguments.settings.base)), kExitUsage);
  if (first == nullptr) throw CallFailed("--weights: all are 0; there is nothing to mix", kExitBadInput);
  return models;
}

CombineResult run_combine(const Context &context, const CombineArguments &arguments, std::vector<CombineModel> *all) {
  Wanted wanted;
  std::vector<size_t> places;  // of the models that are read, among all
  for (size_t i = 0; i < all->size(); ++i) {
    CombineModel &model = (*all)[i];
    if (model.weight == 0) continue;
    wanted.models.push_back(&model);
    places.push_back(i);
    wanted.vocabulary = std::max(wanted.vocabulary, model.n_valid);
  }
  CombineResult result;
  result.models.resize(all->size());
  result.rows = wanted.models[0]->file->rows();
  const bool writes = !arguments.output.empty();
  wanted.max_rows = rows_of_block(wanted.models);
  wanted.outputs = CHORUS_COMBINE_OUT_TOKEN_LOG_PROBS | CHORUS_COMBINE_OUT_ARGMAX | CHORUS_COMBINE_OUT_STATUS |
                   (writes ? CHORUS_COMBINE_OUT_LOG_PROBS : 0);
  const std::vector<int64_t> targets = read_targets(context, arguments, result.rows, wanted.vocabulary);
  const Combiner mixture = new_combiner(context, arguments, wanted);
  std::vector<Combiner> combiners;
  for (CombineModel *model : wanted.models) {
    combiners.push_back(new_combiner(
        context, arguments, {{model}, true, wanted.vocabulary, wanted.max_rows, CHORUS_COMBINE_OUT_TOKEN_LOG_PROBS}));
  }

  RowsWriter writer;
  const size_t log_probs_out = writer.declare("log_probs", CHORUS_F32, {result.rows, wanted.vocabulary});
  const size_t argmax_out = writer.declare("argmax", CHORUS_I32, {result.rows});
  if (writes) writer.start(context, arguments.output, arguments.replace);

  const size_t capacity = static_cast<size_t>(wanted.max_rows);
  std::vector<int64_t> tokens(capacity);
  Outputs mixed{std::vector<float>(capacity),
                std::vector<float>(writes ? capacity * static_cast<size_t>(wanted.vocabulary) : 0),
                std::vector<int32_t>(capacity), std::vector<int32_t>(capacity)};
  std::vector<Outputs> alone(combiners.size(), Outputs{std::vector<float>(capacity), {}, {}, {}});
  for (int64_t first = 0; first < result.rows; first += wanted.max_rows) {
    throw_if_interrupted();
    const int64_t count = std::min(wanted.max_rows, result.rows - first);
    for (CombineModel *model : wanted.models) model->file->read_scores(first, count, &model->block);
    for (int64_t i = 0; i < count && !targets.empty(); ++i) {
      tokens[static_cast<size_t>(i)] = std::max<int64_t>(0, targets[static_cast<size_t>(first + i)]);
    }
    run_block(mixture, wanted.models, count, &tokens, &mixed);
    for (size_t m = 0; m < combiners.size(); ++m) run_block(combiners[m], {wanted.models[m]}, count, &tokens, &alone[m]);
    if (writes) {
      writer.append(log_probs_out, mixed.log_probs.data(), static_cast<uint64_t>(count * wanted.vocabulary) * sizeof(float));
      writer.append(argmax_out, mixed.argmax.data(), static_cast<uint64_t>(count) * sizeof(int32_t));
    }
    tally_block(first, count, targets, mixed, alone, places, arguments.rows, &result);
  }
  if (writes) writer.finish();
  return result;
}

}  // namespace chorus_cli
