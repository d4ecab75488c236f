// SPDX-License-Identifier: Apache-2.0
// What is tried, in the order of the three spaces: distributions, parameters, activations.
#include "sections.h"

#include <algorithm>

namespace host {
namespace {

const std::vector<std::string> kFineTunes = {"legal", "technical", "code"};

// A recipe entry of mergekit's form. JSON strings are YAML strings.
std::string entry(const Study &study, const Member &member) {
  return "  - model: " + nlohmann::json(study.path(member.model)).dump() + "\n    parameters: {weight: " +
         fixed(member.weight, 6) + "}\n";
}

std::string linear_recipe(const Study &study, const std::vector<Member> &members) {
  std::string recipe = "merge_method: linear\ndtype: float32\nmodels:\n";
  for (const Member &member : members) recipe += entry(study, member);
  return recipe;
}

// base + lambda * sum of weight * (model - base), Ilharco et al., arXiv:2212.04089.
std::string task_recipe(const Study &study, const std::string &base, double lambda,
                        const std::vector<Member> &members) {
  std::string recipe = "merge_method: task_arithmetic\ndtype: float32\nparameters: {lambda: " + fixed(lambda, 6) +
                       "}\nbase_model: " + nlohmann::json(study.path(base)).dump() + "\nmodels:\n";
  for (const Member &member : members) recipe += entry(study, member);
  return recipe;
}

std::vector<Member> equal(const std::vector<std::string> &models, double weight) {
  std::vector<Member> members;
  for (const std::string &model : models) members.push_back({model, weight});
  return members;
}

}  // namespace

void each_model_alone(Study &study, Report &report) {
  report.section("1. Each model alone",
                 "Perplexity: among how many tokens a model wavers, on average. Lower is better. No text here was "
                 "trained on. A fine-tune is best on its own domain and pays elsewhere. `other-tokens` cuts text into "
                 "other tokens, so only its bits per byte compare.");
  report.columns(study.texts());
  for (const char *model : {"base", "legal", "technical", "code", "late-1", "late-2", "other-start"}) {
    report.row(study.alone(model));
  }
  report.row(study.alone("other-tokens", true));
}

void mix_predictions(Study &study, Report &report) {
  report.section("2. Mix what models predict: chorus_combiner",
                 "Linear is OR: one member's belief is enough. Log-linear is AND: all must agree. A negative weight is "
                 "evidence against: what is legal and not code.");
  report.columns(study.texts());
  const double third = 1.0 / 3.0;
  report.row(study.mixture("linear: legal, technical, code", CHORUS_COMBINE_LINEAR, equal(kFineTunes, third)));
  report.row(study.mixture("log-linear: legal, technical, code", CHORUS_COMBINE_LOG_LINEAR, equal(kFineTunes, third)));
  report.row(study.mixture("base + 0.5 legal - 0.5 code", CHORUS_COMBINE_LOG_LINEAR,
                           {{"base", 1.0}, {"legal", 0.5}, {"code", -0.5}}));
  report.data()["kernels"]["combine.rows"] = study.combine_kernel();
}

void merge_weights(Study &study, Report &report) {
  report.section("3. Merge what models know: chorus_merger",
                 "One model of the size of one, its weights made from the weights of several by mergekit recipes.");
  report.columns(study.texts());
  report.row(study.merged("average: legal, technical, code", linear_recipe(study, equal(kFineTunes, 1.0))));
  report.row(study.merged("base + 0.4 (each fine-tune - base)",
                          task_recipe(study, "base", 0.4, equal(kFineTunes, 1.0))));
  report.row(study.merged("average: late-1, late-2", linear_recipe(study, equal({"late-1", "late-2"}, 1.0))));
  const Measure apart =
      study.merged("average: base, other-start", linear_recipe(study, equal({"base", "other-start"}, 1.0)));
  report.row(apart);
  report.data()["kernels"]["merge"] = study.merge_kernels();
  const auto &measures = report.data()["measures"];
  const double worse = std::max(measures["base"]["all"].get<double>(), measures["other-start"]["all"].get<double>());
  report.data()["other_start_ratio"] = apart.overall / worse;
  report.say("The last line is the lesson: two good models that started apart, averaged, are " +
             fixed(apart.overall / worse, 1) +
             " times worse than the worse of them. Weights can be merged only where models share a beginning; mixing "
             "what they predict always works.");
}

void route_to_experts(const Library &library, const chorus_context *context, Study &study, Report &report) {
  const std::string name = "mixture-of-experts";
  const Llama model(library, context, study.path(name));
  const Config &c = model.config();
  report.section("4. Keep the best experts per token: chorus_router, chorus_experts",
                 "Base and its fine-tunes became the " + std::to_string(c.experts) +
                     " experts of one model; a trained gate sends each token to the best " +
                     std::to_string(c.experts_per_token) + ", and only those are computed.");
  report.columns(study.texts());
  std::vector<ExpertLoad> loads;
  report.row(study.experts(model, name, loads));

  auto &out = report.data()["experts"];
  out["experts"] = c.experts;
  out["experts_per_token"] = c.experts_per_token;
  out["layers"] = c.layers;
  double chosen = 0, possible = 0;
  for (size_t t = 0; t < loads.size(); ++t) {
    const Text &text = study.texts()[t];
    std::vector<double> per_expert(c.experts, 0.0);
    for (const std::vector<int64_t> &layer : loads[t]) {
      for (size_t e = 0; e < c.experts; ++e) per_expert[e] += static_cast<double>(layer[e]);
    }
    double sum = 0;
    for (double count : per_expert) sum += count;
    std::vector<double> shares;
    for (double count : per_expert) shares.push_back(count / sum);
    report.shares("tokens per expert, " + text.name, shares);
    out["tokens"][text.name] = text.tokens;
    out["loads"][text.name] = loads[t];
    chosen += sum;
    possible += static_cast<double>(text.tokens * c.layers * c.experts);
  }
  // An expert costs 3 products of hidden x intermediate per token; the gate, hidden x experts, is paid for every token.
  const double expert = 3.0 * static_cast<double>(c.hidden * c.intermediate);
  const double gate = static_cast<double>(c.hidden * c.experts) * possible / static_cast<double>(c.experts);
  const double skipped = 1.0 - (chosen * expert + gate) / (possible * expert);
  out["flops_skipped"] = skipped;
  report.data()["kernels"]["route.topk"] = model.router_kernel();
  report.data()["kernels"]["experts.ffn"] = model.experts_kernel();
  report.say("Feed-forward flops skipped, the gate's own counted: " + fixed(100 * skipped, 1) + " %.");
}

void generate_text(Study &study, Report &report) {
  const std::vector<Member> members = {{"legal", 0.5}, {"code", 0.5}};
  const std::string prompt = "This License";
  report.section("5. Text from a mixture",
                 "Drawn from the linear mixture of half legal, half code (temperature 0.6, seed 1), after \"" + prompt +
                     "\". These are tiny models: look at the style, not the sense.");
  const std::string text = study.generate(prompt, members, 0.6, 100, 1);
  report.data()["generated"] = {{"prompt", prompt}, {"text", text}};
  report.quote(prompt + text);
}

}  // namespace host
