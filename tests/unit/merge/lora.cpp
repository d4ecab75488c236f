// SPDX-License-Identifier: Apache-2.0
// model+adapter: round(W + s B A) in the model's type, against plain sums in long double.
#include <filesystem>
#include <fstream>

#include "unit/merge/support.h"

using unit::Bench;
using unit::Model;
using unit::Values;

namespace {

Values random_matrix(unsigned seed, chorus_dtype dtype, int64_t rows, int64_t columns) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, 0.1);
  Values out{dtype, {rows, columns}, {}};
  for (int64_t i = 0; i < rows * columns; ++i) out.values.push_back(normal(random));
  return out;
}

// An adapter's folder in PEFT's layout; returns the tensors as the file holds them.
Model save_adapter(const std::string &folder, Model tensors, const std::string &config) {
  unit::save(folder, &tensors, "");
  const Model stored = unit::load(folder);
  std::filesystem::rename(folder + "/model.safetensors", folder + "/adapter_model.safetensors");
  std::ofstream(folder + "/adapter_config.json") << config;
  return stored;
}

// W + scale L R, L [rows, rank], R [rank, columns].
std::vector<double> added(const Values &weight, double scale, const std::function<double(int64_t, int64_t)> &left,
                          const std::function<double(int64_t, int64_t)> &right, int64_t rank) {
  std::vector<double> out = weight.values;
  const int64_t columns = weight.shape[1];
  for (size_t e = 0; e < out.size(); ++e) {
    const int64_t row = static_cast<int64_t>(e) / columns, column = static_cast<int64_t>(e) % columns;
    long double sum = 0;
    for (int64_t k = 0; k < rank; ++k) sum += static_cast<long double>(left(row, k)) * right(k, column);
    out[e] = static_cast<double>(out[e] + scale * sum);
  }
  return out;
}

double at(const Values &matrix, int64_t row, int64_t column) { return matrix.values[static_cast<size_t>(row * matrix.shape[1] + column)]; }

const std::string kModule = "base_model.model.model.layers.";
const char *const kAlone = "{merge_method: linear, models: [{model: '@a+@lora', parameters: {weight: 1}}]}";

}  // namespace

Test(lora, every_kind_of_tensor) {
  Bench bench;
  bench.add("wide", unit::random_model(3, CHORUS_BF16, 2, 60, 5000));  // pieces begin within rows
  Model tensors;
  tensors[kModule + "0.self_attn.q_proj.lora_A.weight"] = random_matrix(1, CHORUS_F32, 4, 60);
  tensors[kModule + "0.self_attn.q_proj.lora_B.weight"] = random_matrix(2, CHORUS_F32, 60, 4);
  tensors[kModule + "1.mlp.up_proj.lora_A.weight"] = random_matrix(3, CHORUS_BF16, 2, 60);
  tensors[kModule + "1.mlp.up_proj.lora_B.weight"] = random_matrix(4, CHORUS_BF16, 240, 2);
  tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = random_matrix(5, CHORUS_F32, 3, 5000);
  tensors["base_model.model.model.embed_tokens.lora_embedding_B"] = random_matrix(6, CHORUS_F32, 60, 3);
  tensors["base_model.model.lm_head.weight"] = random_matrix(7, CHORUS_F32, 5000, 60);
  const Model adapter = save_adapter(bench / "lora", tensors,
                                     R"({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "alpha_pattern": {"up_proj": 3},
                                         "rank_pattern": {"mlp.up_proj": 2, "embed_tokens": 3}, "bias": "none"})");
  for (const int threads : {1, 2}) {
    const Model got = bench.merge("{merge_method: linear, models: [{model: '@wide+@lora', parameters: {weight: 1}}]}", threads);
    unit::expect_close(got, [&](const std::string &name) {
      const Values &weight = bench.model("wide").at(name);
      if (name == "lm_head.weight") return adapter.at("base_model.model.lm_head.weight").values;
      const bool query = name == "model.layers.0.self_attn.q_proj.weight", up = name == "model.layers.1.mlp.up_proj.weight";
      if (query || up) {
        const std::string module = "base_model.model." + name.substr(0, name.size() - 7);
        const Values &a = adapter.at(module + ".lora_A.weight"), &b = adapter.at(module + ".lora_B.weight");
        return added(weight, query ? 8.0 / 4 : 3.0 / 2, [&](int64_t i, int64_t k) { return at(b, i, k); },
                     [&](int64_t k, int64_t j) { return at(a, k, j); }, a.shape[0]);
      }
      if (name == "model.embed_tokens.weight") {
        const Values &a = adapter.at("base_model.model.model.embed_tokens.lora_embedding_A");
        const Values &b = adapter.at("base_model.model.model.embed_tokens.lora_embedding_B");
        return added(weight, 8.0 / 3, [&](int64_t i, int64_t k) { return at(a, k, i); }, [&](int64_t k, int64_t j) { return at(b, j, k); }, 3);
      }
      return weight.values;
    }, 0.5, 1e-12);
  }
}

Test(lora, rank_stabilised_and_transposed) {
  const Bench bench;
  Model tensors;
  tensors[kModule + "0.self_attn.q_proj.lora_A.default.weight"] = random_matrix(1, CHORUS_F16, 9, 64);
  tensors[kModule + "0.self_attn.q_proj.lora_B.default.weight"] = random_matrix(2, CHORUS_F16, 64, 9);
  const Model adapter = save_adapter(bench / "lora", tensors, R"({"r": 9, "lora_alpha": 6, "use_rslora": true, "fan_in_fan_out": true})");
  const Model got = bench.merge(kAlone);
  unit::expect_close(got, [&](const std::string &name) {
    const Values &weight = bench.model("a").at(name);
    if (name != "model.layers.0.self_attn.q_proj.weight") return weight.values;
    const Values &a = adapter.begin()->second, &b = std::next(adapter.begin())->second;
    return added(weight, 2, [&](int64_t i, int64_t k) { return at(a, k, i); }, [&](int64_t k, int64_t j) { return at(b, j, k); }, 9);
  }, 0.5, 1e-12);
}

// Two adapters of one base are two models, and the base is neither.
Test(lora, adapters_are_models) {
  const Bench bench;
  for (const unsigned seed : {1u, 2u}) {
    Model tensors;
    tensors[kModule + "0.self_attn.q_proj.lora_A.weight"] = random_matrix(seed, CHORUS_F32, 1, 64);
    tensors[kModule + "0.self_attn.q_proj.lora_B.weight"] = random_matrix(seed + 5, CHORUS_F32, 64, 1);
    save_adapter(bench / ("l" + std::to_string(seed)), tensors, R"({"r": 1, "lora_alpha": 1})");
    bench.merge("{merge_method: passthrough, models: [{model: '@a+@l" + std::to_string(seed) + "'}]}", 1, uint64_t{1} << 30, "m" + std::to_string(seed));
  }
  const std::string rest = "base_model: '@a', parameters: {weight: 0.5, density: 0.5}}";
  const Model streamed = bench.merge("{merge_method: ties, models: [{model: '@a+@l1'}, {model: '@a+@l2'}], " + rest);
  const Model stored = bench.merge("{merge_method: ties, models: [{model: '@m1'}, {model: '@m2'}], " + rest);
  for (const auto &[name, tensor] : stored) cr_assert(streamed.at(name).values == tensor.values, "%s differs", name.c_str());
}

Test(lora, what_does_not_fit_is_named) {
  const Bench bench;
  const auto refused = [&](Model tensors, const char *config, const char *want) {
    std::filesystem::remove_all(bench / "lora");
    save_adapter(bench / "lora", std::move(tensors), config);
    const std::string text = bench.error(bench.recipe(kAlone));
    cr_assert(text.find(want) != std::string::npos, "%s: %s", config, text.c_str());
  };
  const auto pair = [&](const std::string &module, int64_t out, int64_t in) {
    return Model{{module + ".lora_A.weight", random_matrix(1, CHORUS_F32, 2, in)}, {module + ".lora_B.weight", random_matrix(2, CHORUS_F32, out, 2)}};
  };
  const std::string query = kModule + "0.self_attn.q_proj";
  const char *const plain = R"({"r": 2, "lora_alpha": 2})";
  refused(pair(kModule + "0.self_attn.q_pro", 64, 64), plain, "did you mean 'model.layers.0.self_attn.q_proj.weight'?");
  refused(pair(query, 64, 32), plain, "give [64, 32]");
  refused({{query + ".lora_A.weight", random_matrix(1, CHORUS_F32, 2, 64)}}, plain, "has one factor alone");
  refused({{"base_model.model.lm_head.weight", random_matrix(1, CHORUS_F32, 2, 64)}}, plain, "'lm_head.weight' of the model is [300, 64]");
  refused(pair(query, 64, 64), R"({"r": 2, "use_dora": true})", "DoRA");
  refused(pair(query, 64, 64), R"({"peft_type": "IA3"})", "LORA adapters are merged");
  refused(pair(query, 64, 64), R"({"r": 2, "bias": "all"})", "bias is \"all\"");
  refused(pair(query, 64, 64), R"({"r": 0})", "it is at least 1");
  refused(pair(query, 64, 64), R"({"r": 2, "rank_pattern": {"layers\\.\\d+": 4}})", "regular expression");
  refused(pair(query, 64, 64), R"([1])", "no JSON object");
  refused(pair(query, 64, 64), R"({"r": "x"})", "a number is needed");
  std::filesystem::remove_all(bench / "lora");
  const std::string text = bench.error(bench.recipe(kAlone));
  cr_assert(text.find("lora") != std::string::npos && text.find("cannot be opened") != std::string::npos, "%s", text.c_str());
}
