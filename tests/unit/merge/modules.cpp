// SPDX-License-Identifier: Apache-2.0
// Models of several modules: which tensor is of which, parameters by module, layers stacked in one of them.
#include <fstream>
#include <sstream>

#include "unit/merge/support.h"

using unit::Bench;
using unit::Model;

namespace {

void add(Model *model, const std::string &name, double value, std::vector<int64_t> shape = {4, 8}) {
  unit::Values &tensor = (*model)[name];
  tensor.dtype = CHORUS_F32;
  tensor.shape = shape;
  tensor.values.assign(static_cast<size_t>(unit::product(shape)), value);
}

// A vision-language model whose tensors all hold `value`, plus a hundredth per layer.
Model vision_language(double value) {
  Model out;
  for (int i = 0; i < 3; ++i) add(&out, "language_model.model.layers." + std::to_string(i) + ".mlp.up_proj.weight", value + 0.01 * i);
  add(&out, "language_model.model.embed_tokens.weight", value);
  add(&out, "language_model.lm_head.weight", value);
  for (int i = 0; i < 2; ++i) add(&out, "vision_tower.vision_model.encoder.layers." + std::to_string(i) + ".mlp.fc1.weight", value + 0.01 * i);
  add(&out, "multi_modal_projector.linear_1.weight", value);
  return out;
}

Model encoder_decoder(double value) {
  Model out;
  add(&out, "shared.weight", value);
  for (const char *side : {"encoder", "decoder"}) {
    for (int i = 0; i < 2; ++i) add(&out, std::string(side) + ".block." + std::to_string(i) + ".layer.0.SelfAttention.q.weight", value + 0.01 * i);
    add(&out, std::string(side) + ".final_layer_norm.weight", value, {8});
  }
  add(&out, "lm_head.weight", value);
  return out;
}

const char *const kVisionConfig = R"({"text_config": {"num_hidden_layers": 3, "layer_types": ["a", "b", "c"]}, "vision_config": {"num_hidden_layers": 2}})";

struct VisionBench : Bench {
  VisionBench() {
    add("v", vision_language(1), kVisionConfig);
    add("w", vision_language(2), kVisionConfig);
  }
};

std::string text_of(const std::string &path) {
  std::ostringstream out;
  out << std::ifstream(path).rdbuf();
  return out.str();
}

double first(const Model &model, const std::string &name) { return model.at(name).values.at(0); }

}  // namespace

Test(modules, parameters_by_module) {
  const VisionBench bench;
  const Model got = bench.merge(R"(
merge_method: linear
modules:
  text_decoder:
    models: [{model: "@v"}, {model: "@w", parameters: {weight: [0, 0.5]}}]
    parameters: {weight: 0.5}
  vision_tower:
    models: [{model: "@v", parameters: {weight: 1}}, {model: "@w", parameters: {weight: 0}}]
  multi_modal_projector:
    models: [{model: "@v"}, {model: "@w"}]
parameters: {weight: 0.25}
)");
  cr_assert_eq(got.size(), bench.model("v").size());
  cr_assert_float_eq(first(got, "language_model.model.layers.0.mlp.up_proj.weight"), 1, 1e-6);
  cr_assert_float_eq(first(got, "language_model.model.layers.1.mlp.up_proj.weight"), 1.01 + 0.25 / 0.75, 1e-6);
  cr_assert_float_eq(first(got, "language_model.model.layers.2.mlp.up_proj.weight"), 1.52, 1e-6);
  cr_assert_float_eq(first(got, "language_model.lm_head.weight"), 1, 1e-6);
  cr_assert_float_eq(first(got, "vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight"), 1.01, 1e-6);
  cr_assert_float_eq(first(got, "multi_modal_projector.linear_1.weight"), 1.5, 1e-6);
}

Test(modules, slices_of_one_module) {
  const VisionBench bench;
  const Model got = bench.merge(R"(
merge_method: passthrough
modules:
  language_model:
    slices:
      - sources: [{model: "@v", layer_range: [0, 2]}]
      - sources: [{model: "@w", layer_range: [1, 3]}]
  visual: {models: [{model: "@w"}]}
  multi_modal_projector: {models: [{model: "@v"}]}
)");
  cr_assert_eq(got.size(), bench.model("v").size() + 1);
  for (const auto &[layer, want] : {std::pair(0, 1.0), std::pair(1, 1.01), std::pair(2, 2.01), std::pair(3, 2.02)}) {
    cr_assert_float_eq(first(got, "language_model.model.layers." + std::to_string(layer) + ".mlp.up_proj.weight"), want, 1e-6);
  }
  cr_assert_float_eq(first(got, "vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight"), 2.01, 1e-6);
  const std::string config = text_of(bench / "out/config.json");
  cr_assert(config.find("\"num_hidden_layers\": 4") != std::string::npos && config.find("\"num_hidden_layers\": 2") != std::string::npos, "%s",
            config.c_str());
  cr_assert(config.find("\"a\",\n      \"b\",\n      \"b\",\n      \"c\"") != std::string::npos, "%s", config.c_str());
}

Test(modules, encoder_and_decoder) {
  Bench bench;
  const char *const config = R"({"num_layers": 2, "num_decoder_layers": 2, "vocab_size": 4})";
  bench.add("t", encoder_decoder(1), config);
  bench.add("u", encoder_decoder(2), config);
  const Model got = bench.merge(R"(
merge_method: passthrough
modules:
  encoder: {slices: [{sources: [{model: "@t", layer_range: [0, 2]}]}, {sources: [{model: "@u", layer_range: [0, 1]}]}]}
  decoder: {models: [{model: "@u"}]}
  shared: {models: [{model: "@t"}]}
)");
  cr_assert_float_eq(first(got, "encoder.block.2.layer.0.SelfAttention.q.weight"), 2, 1e-6);
  cr_assert_float_eq(first(got, "encoder.final_layer_norm.weight"), 2, 1e-6);
  cr_assert_float_eq(first(got, "decoder.block.1.layer.0.SelfAttention.q.weight"), 2.01, 1e-6);
  cr_assert_float_eq(first(got, "lm_head.weight"), 2, 1e-6);
  cr_assert_float_eq(first(got, "shared.weight"), 1, 1e-6);
  const std::string text = text_of(bench / "out/config.json");
  cr_assert(text.find("\"num_layers\": 3") != std::string::npos && text.find("\"num_decoder_layers\": 2") != std::string::npos, "%s", text.c_str());
}

Test(modules, a_model_of_one_module_is_its_text_decoder) {
  const Bench bench;
  const Model got = bench.merge("{merge_method: passthrough, modules: {default: {models: [{model: '@a'}]}}}");
  for (const auto &[name, tensor] : bench.model("a")) cr_assert(got.at(name).values == tensor.values, "%s", name.c_str());
}

Test(modules, wrong_modules_are_named) {
  const VisionBench bench;
  const struct {
    const char *recipe, *want;
  } kWrong[] = {
      {"{merge_method: passthrough, modules: {sound: {models: [{model: '@v'}]}}}", "the models have no module 'sound'; they have text_decoder"},
      {"{merge_method: passthrough, modules: {text_decoder: {models: [{model: '@v'}]}}}", "modules has no entry for it"},
      {"{merge_method: passthrough, modules: {text_decoder: {models: [{model: '@v'}]}, language_model: {models: [{model: '@v'}]}}}", "stands twice"},
      {"{merge_method: passthrough, modules: {text_decoder: {}}}", "module 'text_decoder' has neither models nor slices; one of them"},
      {"{merge_method: passthrough, modules: {text_decoder: {model: '@v'}}}", "unknown key 'model' in module 'text_decoder'; did you mean 'models'?"},
      {"{merge_method: passthrough, modules: []}", "modules is a list; a map"},
      {"{merge_method: passthrough, modules: {}}", "modules is empty"},
      {"{merge_method: passthrough, modules: {a: {models: []}}, models: []}", "models and modules both stand in the recipe"},
      {"{merge_method: passthrough, slices: [{sources: [{model: '@v', layer_range: [0, 1]}]}]}", "has the modules"},
      {"{merge_method: linear, modules: {text_decoder: {models: [{model: '@v'}]}}}", "lacks parameter 'weight'"},
  };
  for (const auto &wrong : kWrong) {
    const std::string text = bench.error(wrong.recipe);
    cr_assert(text.find(wrong.want) != std::string::npos, "%s: %s", wrong.recipe, text.c_str());
  }
}
