// SPDX-License-Identifier: Apache-2.0
// The methods against formulas of their own in double precision.
#include "unit/merge/support.h"

using unit::Bench;
using unit::Model;

namespace {

std::vector<double> sum(const std::vector<std::pair<double, const std::vector<double> *>> &terms) {
  std::vector<double> out(terms[0].second->size());
  for (size_t i = 0; i < out.size(); ++i) {
    long double total = 0;
    for (const auto &[weight, values] : terms) total += static_cast<long double>(weight) * (*values)[i];
    out[i] = static_cast<double>(total);
  }
  return out;
}

bool is_in(const std::string &name, const char *part) { return name.find(part) != std::string::npos; }

// 0 or 1 for the two layers, 0 outside.
double depth(const std::string &name) { return is_in(name, "layers.1.") ? 1 : 0; }

double dot(const std::vector<double> &a, const std::vector<double> &b) {
  long double out = 0;
  for (size_t i = 0; i < a.size(); ++i) out += static_cast<long double>(a[i]) * b[i];
  return static_cast<double>(out);
}

std::vector<double> arc(const std::vector<double> &a, const std::vector<double> &b, double t) {
  const double cosine = dot(a, b) / std::sqrt(dot(a, a)) / std::sqrt(dot(b, b));
  if (std::abs(cosine) > 0.9995) return sum({{1 - t, &a}, {t, &b}});
  const double angle = std::acos(cosine);
  return sum({{std::sin((1 - t) * angle) / std::sin(angle), &a}, {std::sin(t * angle) / std::sin(angle), &b}});
}

}  // namespace

Test(methods, linear_with_gradient_and_filter) {
  for (const chorus_dtype dtype : {CHORUS_BF16, CHORUS_F16, CHORUS_F32}) {
    const Bench bench(dtype);
    const Model got = bench.merge(R"(
models:
  - model: "@a"
    parameters: {weight: 0.5}
  - model: "@b"
    parameters: {weight: [0.1, 0.4]}
  - model: "@c"
    parameters:
      weight:
        - {filter: mlp, value: [0, -0.25]}
        - value: "2.5e-1"
merge_method: linear
)");
    cr_assert_eq(got.size(), bench.model("a").size());
    unit::expect_close(got, [&](const std::string &name) {
      const double wa = 0.5, wb = 0.1 + 0.3 * depth(name), wc = is_in(name, "mlp") ? -0.25 * depth(name) : 0.25;
      const double total = wa + wb + wc;
      return sum({{wa / total, &bench.model("a").at(name).values},
                  {wb / total, &bench.model("b").at(name).values},
                  {wc / total, &bench.model("c").at(name).values}});
    }, 1);
  }
}

Test(methods, linear_without_normalising) {
  const Bench bench;
  const Model got = bench.merge(R"(
models: [{model: "@a", parameters: {weight: 1}}, {model: "@b", parameters: {weight: -0.5}}]
merge_method: linear
parameters: {normalize: off}
dtype: float32
)");
  cr_assert_eq(got.at("lm_head.weight").dtype, CHORUS_F32);
  unit::expect_close(got, [&](const std::string &name) {
    return sum({{1, &bench.model("a").at(name).values}, {-0.5, &bench.model("b").at(name).values}});
  }, 1);
}

Test(methods, one_model_of_weight_one_keeps_every_bit) {
  const Bench bench;
  const Model got = bench.merge("{models: [{model: '@a', parameters: {weight: 3}}, {model: '@b', parameters: {weight: 0}}], merge_method: linear}");
  for (const auto &[name, tensor] : got) cr_assert(tensor.values == bench.model("a").at(name).values, "%s changed", name.c_str());
}

Test(methods, task_arithmetic_of_mixed_dtypes) {
  Bench bench;
  bench.add("h", unit::random_model(9, CHORUS_F16));
  const Model got = bench.merge(R"(
merge_method: task_arithmetic
base_model: "@a"
models:
  - model: "@a"
  - model: "@b"
    parameters: {weight: 0.7}
  - model: "@h"
    parameters: {weight: -0.3}
parameters: {lambda: 0.9}
)");
  // bf16 with f16 gives f32, as torch promotes.
  cr_assert_eq(got.at("lm_head.weight").dtype, CHORUS_F32);
  unit::expect_close(got, [&](const std::string &name) {
    return sum({{1 - 0.9 * 0.4, &bench.model("a").at(name).values},
                {0.9 * 0.7, &bench.model("b").at(name).values},
                {0.9 * -0.3, &bench.model("h").at(name).values}});
  }, 1, 1e-7);
}

Test(methods, task_arithmetic_of_weight_zero_is_the_base) {
  const Bench bench;
  const Model got = bench.merge(R"({merge_method: task_arithmetic, base_model: "@a", models: [{model: "@b"}], parameters: {weight: 0}})");
  for (const auto &[name, tensor] : got) cr_assert(tensor.values == bench.model("a").at(name).values, "%s changed", name.c_str());
}

Test(methods, task_arithmetic_normalised) {
  const Bench bench;
  const Model got = bench.merge(R"(
{merge_method: task_arithmetic, base_model: "@a", out_dtype: float32,
 models: [{model: "@b", parameters: {weight: 3}}, {model: "@c", parameters: {weight: 1}}], parameters: {normalize: true}}
)");
  unit::expect_close(got, [&](const std::string &name) {
    return sum({{0.75, &bench.model("b").at(name).values}, {0.25, &bench.model("c").at(name).values}});
  }, 1, 1e-7);
}

Test(methods, slerp_on_the_arc) {
  const Bench bench;
  const Model got = bench.merge(R"(
merge_method: slerp
base_model: "@b"
slices:
  - sources:
      - {model: "@a", layer_range: [0, 2]}
      - {model: "@b", layer_range: [0, 2]}
parameters:
  t:
    - {filter: mlp, value: [0.25, 0.75]}
    - {filter: norm, value: 1}
    - value: 0.4
)");
  cr_assert_eq(got.size(), bench.model("a").size());
  unit::expect_close(got, [&](const std::string &name) {
    const double t = is_in(name, "mlp") ? 0.25 + 0.5 * depth(name) : is_in(name, "norm") ? 1 : 0.4;
    return arc(bench.model("b").at(name).values, bench.model("a").at(name).values, t);
  }, 2, 1e-6);
}

Test(methods, slerp_of_near_and_opposite_vectors_is_a_line) {
  Bench bench;
  Model near = bench.model("a"), opposite = bench.model("a");
  for (auto &[name, tensor] : near) tensor.values[0] *= 1.05;
  for (auto &[name, tensor] : opposite) {
    for (double &value : tensor.values) value *= -0.5;
  }
  bench.add("near", near);
  bench.add("opposite", opposite);
  for (const char *other : {"near", "opposite"}) {
    const Model got = bench.merge(std::string(R"({merge_method: slerp, base_model: "@a", models: [{model: "@a"}, {model: "@)") + other +
                                  R"("}], parameters: {t: 0.3}})");
    unit::expect_close(got, [&](const std::string &name) {
      return sum({{0.7, &bench.model("a").at(name).values}, {0.3, &bench.model(other).at(name).values}});
    }, 2, 1e-6);
  }
}

Test(methods, slerp_ends_are_the_models) {
  const Bench bench;
  for (const int t : {0, 1}) {
    const Model got = bench.merge(R"({merge_method: slerp, base_model: "@a", models: [{model: "@b"}, {model: "@a"}], parameters: {t: )" +
                                  std::to_string(t) + "}}");
    for (const auto &[name, tensor] : got) {
      cr_assert(tensor.values == bench.model(t == 0 ? "a" : "b").at(name).values, "t = %d: %s changed", t, name.c_str());
    }
  }
}

Test(methods, passthrough_stacks_slices) {
  Bench bench;
  bench.add("deep", unit::random_model(7, CHORUS_BF16, 5), "{\"num_hidden_layers\": 5, \"layer_types\": [\"a\", \"b\", \"c\", \"d\", \"e\"]}");
  const Model got = bench.merge(R"(
merge_method: passthrough
slices:
  - sources: [{model: "@deep", layer_range: [0, 3]}]
  - sources: [{model: "@a", layer_range: [1, 2], parameters: {scale: 0.5}}]
  - sources: [{model: "@deep", layer_range: [2, 5]}]
)");
  cr_assert_eq(got.size(), 3 + 7 * 3);
  const auto expect = [&](const std::string &name, const std::string &model, const std::string &from, double scale) {
    std::vector<double> want = bench.model(model).at(from).values;
    for (double &value : want) value *= scale;
    cr_assert(got.at(name).values == want, "%s is not %s of %s", name.c_str(), from.c_str(), model.c_str());
  };
  expect("model.embed_tokens.weight", "deep", "model.embed_tokens.weight", 1);
  expect("model.layers.2.mlp.up_proj.weight", "deep", "model.layers.2.mlp.up_proj.weight", 1);
  expect("model.layers.3.mlp.up_proj.weight", "a", "model.layers.1.mlp.up_proj.weight", 0.5);
  expect("model.layers.4.self_attn.q_proj.weight", "deep", "model.layers.2.self_attn.q_proj.weight", 1);
  expect("model.layers.6.mlp.up_proj.weight", "deep", "model.layers.4.mlp.up_proj.weight", 1);
  expect("lm_head.weight", "deep", "lm_head.weight", 1);
  const std::string config = unit::read_file(bench / "out/config.json");
  cr_assert(unit::contains(config, "\"num_hidden_layers\": 7"), "%s", config.c_str());
}
