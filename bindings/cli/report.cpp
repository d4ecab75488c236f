// SPDX-License-Identifier: Apache-2.0
// Diagnoses the mixture over all rows with targets and draws it: reliability of the mixture and each model, perplexity against
// each weight, tables of uncertainty and of differences.
#include "report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <numeric>

#include "svg.h"

namespace chorus_cli {
namespace {

using Diagnosis = Owned<chorus_diagnosis, chorus_diagnosis_destroy>;

constexpr int64_t kCurveRows = 1000;  // weight plots need a run per point
constexpr int kCurvePoints = 21;

struct Curve {
  Points perplexities;
  double weight;  // in use
};

// What the report reads.
struct Run {
  const Context &context;
  const CombineArguments &arguments;
  std::vector<CombineModel *> models;  // those that are read
  int64_t vocabulary = 1, rows = 0, block = 1;
  std::vector<int64_t> targets;
  bool linear() const { return arguments.rule == "linear"; }
};

// Sum of the weights in use; a linear mixture divides by it.
double total_weight(const Run &run) {
  double total = 0;
  for (const CombineModel *model : run.models) total += model->weight;
  return total;
}

void read_block(const Run &run, int64_t first, int64_t count, std::vector<int64_t> *tokens) {
  throw_if_interrupted();
  for (CombineModel *model : run.models) model->file->read_scores(first, count, &model->block);
  tokens->assign(static_cast<size_t>(run.block), 0);
  for (int64_t i = 0; i < count; ++i) (*tokens)[static_cast<size_t>(i)] = std::max<int64_t>(0, run.targets[static_cast<size_t>(first + i)]);
}

Diagnosis new_diagnosis(const Run &run) {
  std::vector<double> weights;
  for (const CombineModel *model : run.models) weights.push_back(run.linear() ? model->weight : 1);
  chorus_diagnosis_options options = CHORUS_DIAGNOSIS_OPTIONS_INIT;
  options.n_models = static_cast<int32_t>(run.models.size());
  options.weights = weights.data();
  Call call;
  chorus_diagnosis *diagnosis = nullptr;
  call(chorus_diagnosis_create(run.context.get(), &options, &diagnosis, call.slot()));
  return Diagnosis(diagnosis);
}

// Each model's and the mixture's log-prob rows, temperature and kind applied, into the diagnosis; runs of rows with targets.
Diagnosis diagnose(const Run &run) {
  Diagnosis diagnosis = new_diagnosis(run);
  std::vector<Combiner> combiners;
  const Wanted wanted{run.models, false, run.vocabulary, run.block, CHORUS_COMBINE_OUT_LOG_PROBS};
  for (CombineModel *model : run.models) {
    Wanted alone = wanted;
    alone.models = {model};
    alone.alone = true;
    combiners.push_back(new_combiner(run.context, run.arguments, alone));
  }
  combiners.push_back(new_combiner(run.context, run.arguments, wanted));
  const size_t size = static_cast<size_t>(run.block * run.vocabulary);
  std::vector<Outputs> outputs(combiners.size(), Outputs{{}, std::vector<float>(size), {}, {}});
  std::vector<int64_t> tokens;
  for (int64_t first = 0; first < run.rows; first += run.block) {
    const int64_t count = std::min(run.block, run.rows - first);
    read_block(run, first, count, &tokens);
    for (size_t m = 0; m < combiners.size(); ++m) {
      run_block(combiners[m], m < run.models.size() ? std::vector<CombineModel *>{run.models[m]} : run.models, count, &tokens,
                &outputs[m]);
    }
    for (int64_t at = 0; at < count; ++at) {
      if (run.targets[static_cast<size_t>(first + at)] < 0) continue;
      int64_t end = at;
      while (end < count && run.targets[static_cast<size_t>(first + end)] >= 0) ++end;
      std::vector<std::unique_ptr<View>> views;
      std::vector<const chorus_tensor *> scores;
      for (Outputs &output : outputs) {
        views.push_back(std::make_unique<View>(output.log_probs.data() + at * run.vocabulary, CHORUS_F32, end - at, run.vocabulary));
        scores.push_back(views.back()->get());
      }
      const View gold(tokens.data() + at, CHORUS_I64, end - at);
      chorus_diagnosis_batch batch = CHORUS_DIAGNOSIS_BATCH_INIT;
      batch.rows = end - at;
      batch.scores = scores.data();
      batch.combined = scores.back();
      batch.tokens = gold.get();
      Call call;
      call(chorus_diagnosis_add(diagnosis.get(), &batch, call.slot()));
      at = end;
    }
  }
  return diagnosis;
}

// Weights with that of model i at place `part` of its range: linear, 0 to 1 of the whole, the others sharing the rest as
// they do now; log-linear, 1 to either side of where it is.
std::vector<float> weights_at(const Run &run, size_t i, double part, double *x) {
  const double total = total_weight(run), rest = total - run.models[i]->weight;
  std::vector<float> out;
  *x = run.linear() ? part : run.models[i]->weight + 2 * part - 1;
  for (size_t j = 0; j < run.models.size(); ++j) {
    const double others = rest > 0 ? run.models[j]->weight / rest : 0;
    out.push_back(static_cast<float>(j == i ? *x : run.linear() ? (1 - part) * others : run.models[j]->weight));
  }
  return out;
}

std::vector<Curve> curves_of(const Run &run) {
  std::vector<std::vector<double>> sums(run.models.size(), std::vector<double>(kCurvePoints));
  std::vector<Curve> curves(run.models.size());
  const Combiner combiner = new_combiner(
      run.context, run.arguments, {run.models, false, run.vocabulary, run.block, CHORUS_COMBINE_OUT_TOKEN_LOG_PROBS});
  Outputs outputs{std::vector<float>(static_cast<size_t>(run.block)), {}, {}, {}};
  std::vector<int64_t> tokens;
  const int64_t rows = std::min(run.rows, kCurveRows);
  int64_t scored = 0;
  for (int64_t first = 0; first < rows; first += run.block) {
    const int64_t count = std::min(run.block, rows - first);
    read_block(run, first, count, &tokens);
    for (int64_t i = 0; i < count; ++i) scored += run.targets[static_cast<size_t>(first + i)] >= 0;
    for (size_t m = 0; m < curves.size(); ++m) {
      for (int point = 0; point < kCurvePoints; ++point) {
        double x;
        std::vector<float> weights = weights_at(run, m, point / (kCurvePoints - 1.0), &x);
        run_block(combiner, run.models, count, &tokens, &outputs, &weights);
        for (int64_t i = 0; i < count; ++i) {
          if (run.targets[static_cast<size_t>(first + i)] >= 0) sums[m][static_cast<size_t>(point)] += outputs.token_log_probs[static_cast<size_t>(i)];
        }
      }
    }
  }
  for (size_t m = 0; m < curves.size(); ++m) {
    curves[m].weight = run.models[m]->weight / (run.linear() ? total_weight(run) : 1);
    for (int point = 0; point < kCurvePoints; ++point) {
      double x;
      weights_at(run, m, point / (kCurvePoints - 1.0), &x);
      curves[m].perplexities.emplace_back(x, std::exp(-sums[m][static_cast<size_t>(point)] / static_cast<double>(scored)));
    }
  }
  return curves;
}

// ---- Drawing ----

std::string reliability_plot(const chorus_diagnosis_info &info, size_t i, const std::string &name) {
  const auto bins = static_cast<size_t>(info.n_bins);
  Plot plot("Reliability: " + name, "confidence of the best token", "share that is right", 0, 1, 0, 1);
  Points bars, line;
  for (size_t b = 0; b < bins; ++b) {
    bars.emplace_back((static_cast<double>(b) + 0.5) / static_cast<double>(bins), info.width_accuracies[i * bins + b]);
    line.emplace_back(info.mass_confidences[i * bins + b], info.mass_accuracies[i * bins + b]);
  }
  plot.line({{0, 0}, {1, 1}}, "#888888", "", true);
  plot.bars(bars, 0.9 / static_cast<double>(bins), color_of(0));
  plot.line(line, color_of(1), "bins of equal mass");
  return plot.svg();
}

std::string weight_plot(const Curve &curve, const std::string &name, bool linear) {
  double low = std::numeric_limits<double>::infinity(), high = 0;
  for (const auto &[x, y] : curve.perplexities) {
    if (!std::isfinite(y)) continue;
    low = std::min(low, y);
    high = std::max(high, y);
  }
  if (!std::isfinite(low)) return fmt::format("<p>Perplexity against the weight of {}: infinite everywhere.</p>\n", html_text(name));
  const double top = std::min(high, 3 * low);  // the ends may be far off
  Plot plot("Perplexity against the weight of " + name, linear ? "weight (the others share the rest)" : "weight (the others stay)",
            "perplexity", curve.perplexities.front().first, curve.perplexities.back().first, low - 0.05 * (top - low), top);
  plot.line(curve.perplexities, color_of(0), "");
  double at_weight = std::numeric_limits<double>::quiet_NaN();
  for (size_t k = 0; k + 1 < curve.perplexities.size(); ++k) {
    const auto &[x0, y0] = curve.perplexities[k];
    const auto &[x1, y1] = curve.perplexities[k + 1];
    if (curve.weight >= x0 && curve.weight <= x1) at_weight = y0 + (y1 - y0) * (curve.weight - x0) / (x1 - x0);
  }
  plot.mark(curve.weight, at_weight, color_of(1));
  return plot.svg();
}

std::string row(const std::string &head, const std::vector<std::string> &cells) {
  std::string out = "<tr><th>" + html_text(head) + "</th>";
  for (const std::string &cell : cells) out += "<td>" + html_text(cell) + "</td>";
  return out + "</tr>\n";
}

std::string number(double value) { return std::isnan(value) ? "–" : fmt::format("{:.4f}", value); }

std::string score_table(const chorus_diagnosis_info &info, const std::vector<std::string> &names) {
  std::string out = "<table>\n" + row("", {"perplexity", "NLL", "accuracy", "Brier", "ECE (width)", "ECE (mass)", "MCE"});
  for (size_t i = 0; i < names.size(); ++i) {
    const double nll = info.nll_infinite[i] > 0 ? std::numeric_limits<double>::infinity() : info.nll[i];
    out += row(names[i], {number(std::exp(nll)), number(nll), number(info.accuracy[i]), number(info.brier[i]),
                          number(info.ece_width[i]), number(info.ece_mass[i]), number(info.mce[i])});
  }
  return out + "</table>\n";
}

std::string pair_table(const std::string &title, const double *values, const std::vector<std::string> &names, size_t n) {
  std::string out = "<h3>" + html_text(title) + "</h3>\n<table>\n" +
                    row("", {names.begin(), names.begin() + static_cast<std::ptrdiff_t>(n)});
  for (size_t i = 0; i < n; ++i) {
    std::vector<std::string> cells;
    for (size_t j = 0; j < n; ++j) cells.push_back(number(values[i * n + j]));
    out += row(names[i], cells);
  }
  return out + "</table>\n";
}

std::string page(const Run &run, const chorus_diagnosis_info &info, const std::vector<Curve> &curves) {
  std::vector<std::string> names;
  for (const CombineModel *model : run.models) names.push_back(model->name);
  const size_t n = names.size();
  names.push_back("mixture (" + run.arguments.rule + ")");
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>chorus combine</title>\n<style>\n"
      "body{font:14px sans-serif;max-width:980px;margin:2em auto;color:#222}table{border-collapse:collapse;margin:1em 0}\n"
      "th,td{padding:3px 10px;text-align:right;border-bottom:1px solid #ddd}th:first-child{text-align:left}\n"
      "svg{margin:4px}svg text{font:11px sans-serif;fill:#333}svg .title{font-weight:bold}.grid{stroke:#e4e4e4}\n"
      "</style></head><body>\n<h1>Mixture of " + std::to_string(n) + " models</h1>\n";
  out += fmt::format("<p>{} rows with a target, {} left out (NaN or no distribution).</p>\n", info.gold_rows, info.invalid_rows);
  out += score_table(info, names);
  out += "<h2>Weights</h2>\n";
  for (size_t i = 0; i < n; ++i) out += weight_plot(curves[i], names[i], run.linear());
  out += fmt::format("<p>Dot: the weight in use. Over the first {} rows.</p>\n", std::min(run.rows, kCurveRows));
  out += "<h2>Calibration</h2>\n";
  out += reliability_plot(info, n, names[n]);
  for (size_t i = 0; i < n; ++i) out += reliability_plot(info, i, names[i]);
  out += "<p>Bars: bins of equal width. Above the dashed line a model is right more often than it says, below less often.</p>\n<h2>Uncertainty</h2>\n<table>\n";
  out += row("entropy of the linear mixture", {number(info.entropy)});
  out += row("expected entropy", {number(info.expected_entropy)});
  out += row("mutual information (what the models disagree on)", {number(info.mutual_information)});
  out += row("rows with different best tokens", {number(info.disagreement)});
  out += row("variation ratio", {number(info.variation_ratio)});
  out += row("ensemble gain, nats per token", {number(info.ensemble_gain)});
  out += "</table>\n<h2>Between models</h2>\n";
  out += pair_table("Jensen-Shannon divergence", info.js, names, n);
  out += pair_table("KL(row ‖ column)", info.kl, names, n);
  out += pair_table("Different best tokens", info.disagreements, names, n);
  out += pair_table("Correlation of being right", info.correlation, names, n);
  return out + "</body></html>\n";
}

void write_file(const std::string &path, const std::string &text) {
  const std::string partial = path + ".partial";
  std::ofstream file(partial, std::ios::binary);
  file << text;
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(partial, path, error);
  if (file && !error) return;
  std::error_code ignored;
  std::filesystem::remove(partial, ignored);
  throw CallFailed(fmt::format("--report {}: cannot be written", printable(path)), kExitFailure);
}

}  // namespace

void check_report(const CombineArguments &arguments) {
  if (arguments.report.empty()) return;
  if (arguments.targets.empty()) throw CallFailed("--report needs --targets: it says how well they are predicted", kExitUsage);
  std::error_code ignored;
  if (!arguments.replace && std::filesystem::exists(arguments.report, ignored)) {
    throw CallFailed(fmt::format("--report {}: exists; --replace writes over it", printable(arguments.report)), kExitBadInput);
  }
}

void write_report(const Context &context, const CombineArguments &arguments, std::vector<CombineModel> *models) {
  Run run{context, arguments, {}, 1, 0, 1, {}};
  for (CombineModel &model : *models) {
    if (model.file == nullptr) continue;
    run.models.push_back(&model);
    run.vocabulary = std::max(run.vocabulary, model.n_valid);
  }
  run.rows = run.models[0]->file->rows();
  run.block = std::max<int64_t>(1, rows_of_block(run.models) / 2);  // log-probs of every model lie beside the scores
  run.targets = read_targets(context, arguments, run.rows, run.vocabulary);
  const Diagnosis diagnosis = diagnose(run);
  const std::vector<Curve> curves = curves_of(run);
  chorus_diagnosis_info info = CHORUS_DIAGNOSIS_INFO_INIT;
  Call call;
  call(chorus_diagnosis_get(diagnosis.get(), &info, call.slot()));
  write_file(arguments.report, page(run, info, curves));
}

}  // namespace chorus_cli
