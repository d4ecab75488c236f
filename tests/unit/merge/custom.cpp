// SPDX-License-Identifier: Apache-2.0
// merge_method: custom. Spelled like a named method it gives that method's bytes; other compositions against plain code.
#include <algorithm>
#include <numeric>

#include "unit/merge/support.h"

using unit::Bench;
using unit::Model;

namespace {

const char *const kModels = R"(
base_model: "@a"
models:
  - {model: "@b", parameters: {weight: 0.7, density: 0.4}}
  - {model: "@c", parameters: {weight: -0.2, density: 0.6}}
)";
const char *const kModelsWithoutWeight = R"({base_model: "@a", models: [{model: "@b"}, {model: "@c"}], )";

void expect_same(const Model &got, const Model &want, const char *what) {
  cr_assert_eq(got.size(), want.size());
  for (const auto &[name, tensor] : want) {
    cr_assert(got.at(name).dtype == tensor.dtype && got.at(name).values == tensor.values, "%s: %s differs", what, name.c_str());
  }
}

std::string recipe(const std::string &method, const std::string &parameters) {
  return std::string(kModels) + "merge_method: " + method + "\nparameters: {" + parameters + "}\n";
}

}  // namespace

Test(custom, spelled_like_a_named_method_is_that_method) {
  const Bench bench;
  const struct {
    const char *method, *parameters, *stages;
  } kPairs[] = {
      {"task_arithmetic", "lambda: 0.9", "lambda: 0.9"},
      {"task_arithmetic", "normalize: true", "combine: mean"},
      {"ties", "", "operand: weighted_delta, sparsify: magnitude, consensus: sign, combine: mean_of_kept"},
      {"ties", "rescale: true, normalize: false", "operand: weighted_delta, sparsify: magnitude, rescale: l1, consensus: sign"},
      {"dare_linear", "", "sparsify: bernoulli, rescale: l1"},
      {"dare_ties", "lambda: 1.5", "operand: weighted_delta, sparsify: bernoulli, rescale: l1, consensus: sign, lambda: 1.5"},
      {"breadcrumbs", "gamma: 0.05", "sparsify: band, gamma: 0.05"},
      {"breadcrumbs_ties", "normalize: true", "operand: weighted_delta, sparsify: band, consensus: sign, normalize: true"},
      {"della", "epsilon: 0.1", "operand: weighted_delta, sparsify: rank, epsilon: 0.1, granularity: row, rescale: l1, consensus: sign, "
                                "normalize: true"},
      {"della_linear", "", "sparsify: rank, rescale: l1"},
  };
  for (const auto &pair : kPairs) {
    expect_same(bench.merge(recipe("custom", pair.stages)), bench.merge(recipe(pair.method, pair.parameters)), pair.method);
  }
}

Test(custom, sce_and_linear_by_stages) {
  const Bench bench;
  const std::string models = kModelsWithoutWeight;
  expect_same(bench.merge(models + "merge_method: custom, parameters: {sparsify: variance, select_topk: 0.3, weights: energy, consensus: sign, "
                                   "combine: mean_of_kept, divisor_floor: 1e-6}}"),
              bench.merge(models + "merge_method: sce, parameters: {select_topk: 0.3}}"), "sce");
  const std::string two = "{models: [{model: '@b', parameters: {weight: 2}}, {model: '@c', parameters: {weight: 1}}], merge_method: ";
  expect_same(bench.merge(two + "custom, parameters: {combine: mean}}"), bench.merge(two + "linear}"), "linear");
}

// The largest 30 % of each delta over their share, as PEFT rescales; signs elected without weights; no base added.
Test(custom, a_composition_without_a_name) {
  const Bench bench;
  const Model got = bench.merge(R"(
merge_method: custom
base_model: "@a"
models: [{model: "@b", parameters: {weight: 3}}, {model: "@c", parameters: {weight: 0.25}}]
dtype: float32
parameters: {operand: delta, sparsify: magnitude, density: 0.3, rescale: inverse_density, consensus: sign, add_base: false, lambda: 2}
)");
  unit::expect_close(got, [&](const std::string &name) {
    const std::vector<double> &base = bench.model("a").at(name).values;
    std::vector<std::vector<double>> kept;
    for (const char *model : {"b", "c"}) {
      std::vector<double> delta = bench.model(model).at(name).values;
      for (size_t e = 0; e < base.size(); ++e) delta[e] -= base[e];
      std::vector<size_t> order(delta.size());
      std::iota(order.begin(), order.end(), size_t{0});
      std::ranges::stable_sort(order, std::greater(), [&](size_t e) { return std::abs(static_cast<float>(delta[e])); });
      for (size_t k = static_cast<size_t>(0.3 * static_cast<double>(delta.size())); k < order.size(); ++k) delta[order[k]] = 0;
      for (double &value : delta) value /= 0.3;
      kept.push_back(std::move(delta));
    }
    std::vector<double> out(base.size());
    for (size_t e = 0; e < base.size(); ++e) {
      const bool plus = kept[0][e] + kept[1][e] >= 0;
      for (const double term : {3 * kept[0][e], 0.25 * kept[1][e]}) out[e] += (plus ? term > 0 : term < 0) ? 2 * term : 0;
    }
    return out;
  }, 1);
}

Test(custom, stages_may_differ_by_tensor) {
  const Bench bench;
  const Model got = bench.merge(recipe("custom", "sparsify: [{filter: mlp, value: magnitude}, {value: none}]"));
  const Model dense = bench.merge(recipe("task_arithmetic", ""));
  const Model trimmed = bench.merge(recipe("custom", "sparsify: magnitude"));
  for (const auto &[name, tensor] : got) {
    const Model &want = name.find("mlp") != std::string::npos ? trimmed : dense;
    cr_assert(tensor.values == want.at(name).values, "%s differs", name.c_str());
  }
}

Test(custom, wrong_stages_are_named) {
  const Bench bench;
  const struct {
    const char *parameters, *want;
  } kWrong[] = {
      {"sparsify: magnitud", "r:7:24: sparsify is 'magnitud'; one of none, magnitude, band, bernoulli, rank, variance is needed; did you mean 'magnitude'?"},
      {"sparsify: [none, 3]", "sparsify is '3'"},
      {"sparsify: {a: 1}", "unknown key 'a' in sparsify"},
      {"consensos: sign", "unknown parameter 'consensos' of custom; did you mean 'consensus'?"},
      {"combine: sum, normalize: true", "combine and normalize are both given"},
      {"granularity: row", "granularity is row; with sparsify: none it is tensor"},
      {"weights: energy", "input 0 has weight 0.7 and weights is energy"},
      {"sparsify: variance, select_topk: 0.5, rescale: inverse_density", "which has no density"},
      {"divisor_floor: -1", "divisor_floor is -1; at least 0 is allowed"},
  };
  for (const auto &wrong : kWrong) {
    const std::string text = bench.error(recipe("custom", wrong.parameters));
    cr_assert(text.find(wrong.want) != std::string::npos, "{%s}: %s", wrong.parameters, text.c_str());
  }
  const std::string linear = "{models: [{model: '@b'}], merge_method: custom, parameters: {";
  for (const auto &wrong : {std::pair("", "no weight is given for input 0"), std::pair("operand: delta, weight: 1", "taken from base_model"),
                            std::pair("add_base: true, weight: 1", "the recipe has no base_model"),
                            std::pair("combine: mean, weight: 0", "which sum to 0")}) {
    const std::string text = bench.error(linear + wrong.first + "}}");
    cr_assert(text.find(wrong.second) != std::string::npos, "{%s}: %s", wrong.first, text.c_str());
  }
}
