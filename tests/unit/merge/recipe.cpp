// SPDX-License-Identifier: Apache-2.0
// What is wrong with a recipe, told with line and column, all at once; what recipes in the wild carry, accepted.
#include "unit/merge/support.h"

using unit::Bench;

namespace {

struct Case {
  const char *recipe, *error;
};

// "@a" stands for the folder of model a, in recipes and in messages.
const Case kCases[] = {
    {"", "r: the recipe is empty; it needs at least merge_method and models"},
    {"merge_method: [linear", "r:2:1: not YAML: did not find expected ',' or ']' (while parsing a flow sequence, which begins at line 1)"},
    {"a: \"\\xzz\"", "r:1:7: not YAML: did not find expected hexdecimal number (while parsing a quoted scalar, which begins at line 1)"},
    {"- linear", "r has 3 errors\n"
                 "  r:1:1: the recipe is a list; a map with the keys merge_method, models, slices, modules, base_model, parameters, dtype, "
                 "out_dtype, tokenizer_source, tokenizer, chat_template is needed\n"
                 "  r:1:1: merge_method is missing; known: arcee_fusion, breadcrumbs, breadcrumbs_ties, custom, dare_linear, dare_ties, della, della_linear, karcher, linear, model_stock, multislerp, nearswap, nuslerp, passthrough, ram, ramplus_tl, sce, slerp, task_arithmetic, ties\n"
                 "  r:1:1: the recipe has neither models nor slices nor modules; one of them is needed"},
    {"merge_method: linera\nmodels: [{model: '@a', parameters: {wieght: 1}}]",
     "r has 2 errors\n"
     "  r:1:15: unknown merge_method 'linera'; did you mean 'linear'?\n"
     "  r:2:37: unknown parameter 'wieght' of linear; did you mean 'weight'?"},
    {"merge_method: linear\nmodel: []\n",
     "r has 2 errors\n  r:1:1: the recipe has neither models nor slices nor modules; one of them is needed\n  r:2:1: unknown key 'model' in the recipe; did you mean 'models'?"},
    {"merge_method: linear\nmodels:\n  - model: '@a'\n    weight: 0.5\n",
     "r:4:5: 'weight' stands beside the keys of an entry of models; it is a parameter: write it below 'parameters'"},
    {"merge_method: linear\nmodels:\n  - model: '@a'\n  - model: '@b'\n    parameters: {weight: 1}\n",
     "r:3:5: model '@a' lacks parameter 'weight', which linear needs of each: weight of the model; 0: it is not read"},
    {"merge_method: linear\nmodels: [{model: '@a'}]\nparameters: {weight: heavy, normalize: 2}\ndtype: bf61\n",
     "r has 3 errors\n"
     "  r:3:22: weight is text ('heavy'); a number, a list of numbers, or a list of {filter, value} is needed\n"
     "  r:3:40: normalize is an integer ('2'); true or false is needed\n"
     "  r:4:8: dtype is 'bf61'; bfloat16, float16, float32, float64 are allowed"},
    {"merge_method: linear\nmodels: [{model: '@a'}]\nparameters:\n  weight:\n    - {fliter: mlp, value: 1}\n    - {filter: mlp}\n    - [.nan]\n",
     "r has 3 errors\n"
     "  r:5:8: unknown key 'fliter' in weight; filter and value are known; did you mean 'filter'?\n"
     "  r:6:7: weight lacks 'value' beside its filter\n"
     "  r:7:8: weight is .nan; a finite number is needed"},
    {"merge_method: linear\nmodels: [{model: '@a'}]\nparameters:\n  weight: {filter: mlp, value: 1}\n",
     "r:2:10: no value of 'weight' reaches tensor 'lm_head.weight'; add one without a filter, for all other tensors"},
    {"merge_method: slerp\nmodels: [{model: '@a'}, {model: '@b'}, {model: '@c'}]\nbase_model: '@a'\n",
     "r has 2 errors\n"
     "  r:1:15: slerp takes exactly 2 models; the recipe has 3\n"
     "  r:1:15: slerp needs parameter 't': place on the arc from the base (0) to the other model (1)"},
    {"merge_method: slerp\nmodels: [{model: '@a'}, {model: '@b'}]\nparameters: {t: 0.5}\n", "r:1:15: slerp needs base_model"},
    {"merge_method: slerp\nmodels: [{model: '@a'}, {model: '@b'}]\nbase_model: '@c'\nparameters: {t: 0.5}\n",
     "r:1:15: base_model '@c' is none of the models slerp merges; it must be one of them"},
    {"merge_method: nearswap\nmodels: [{model: '@a'}, {model: '@b'}, {model: '@c'}]\nbase_model: '@a'\n",
     "r has 2 errors\n"
     "  r:1:15: nearswap takes exactly 1 model besides base_model; the recipe has 2\n"
     "  r:1:15: nearswap needs parameter 't': difference up to which the other model's element is taken"},
    {"merge_method: nearswap\nmodels: [{model: '@b'}]\nbase_model: '@a'\nparameters: {k: 1}\n",
     "r:4:14: unknown parameter 'k' of nearswap; did you mean 't'?"},
    {"merge_method: arcee_fusion\nmodels: [{model: '@a'}, {model: '@b'}]\n", 
     "r has 2 errors\n"
     "  r:1:15: arcee_fusion needs base_model\n"
     "  r:1:15: arcee_fusion takes exactly 1 model besides base_model; the recipe has 2"},
    {"merge_method: linear\nmodels: [{model: '@a'}, {model: '@a'}]\nparameters: {weight: 1}\n",
     "r:2:25: model '@a' stands twice in the recipe"},
    {"merge_method: linear\nmodels: [{model: '@a'}, {model: '@b'}]\nbase_model: '@c'\nparameters: {}\n",
     "r has 3 errors\n"
     "  r:2:10: model '@a' lacks parameter 'weight', which linear needs of each: weight of the model; 0: it is not read\n"
     "  r:2:25: model '@b' lacks parameter 'weight', which linear needs of each: weight of the model; 0: it is not read\n"
     "  r:3:13: base_model '@c' is merged as one more model by linear, and lacks parameter 'weight'; list it among the models with one"},
    {"merge_method: passthrough\nslices:\n  - sources: [{model: '@a', layer_range: [1, 1]}]\n  - sources: [{model: '@a'}]\n  - {}\n",
     "r has 3 errors\n"
     "  r:3:42: layer_range is [1, 1]; it begins at 0 or above and ends beyond its beginning\n"
     "  r:4:15: this entry of sources lacks 'layer_range', for example [0, 16]\n"
     "  r:5:5: this slice lacks 'sources', a list of models with their layer_range"},
    {"merge_method: passthrough\nslices:\n  - sources: [{model: '@a', layer_range: [0, 9]}]\n",
     "r:3:15: layer_range is [0, 9]; '@a' has 2 layers"},
    {"merge_method: linear\nslices:\n  - sources: [{model: '@a', layer_range: [0, 2]}, {model: '@b', layer_range: [0, 1]}]\nparameters: {weight: 1}\n",
     "r:3:51: this source has 1 layers, the first of its slice 2; all have as many"},
    {"merge_method: linear\nmodels: &m [*m]\n", "r:2:13: '*m' contains itself"},
    {"merge_method: linear\nmodels: *m\n", "r:2:9: '*m' refers to no anchor '&m' before it"},
    {"merge_method: linear\nmodels: !!python/object:os.system [x]\n", "r:2:9: tag 'tag:yaml.org,2002:python/object:os.system' has no meaning in a recipe; leave it out"},
    {"merge_method: linear\nmodels: []\n", "r:2:9: models is empty"},
    {"merge_method: linear\nmodels: [{model: '@a', parameters: {weight: 1}}, {model: '@b', parameters: {weight: -1}}]\n",
     "r:1:15: tensor 'lm_head.weight' cannot be merged by linear\n"
     "  the weights are [1, -1], which sum to 0; normalised they are nothing. Set normalize: false, or other weights"},
    {"merge_method: linear\nmodules: {a: {}}\ntokenizer: {sauce: base, source: base}\nchat_template: chatmll\n",
     "r has 3 errors\n"
     "  r:2:14: module 'a' has neither models nor slices; one of them is needed\n"
     "  r:3:13: unknown key 'sauce' in tokenizer; did you mean 'source'?\n"
     "  r:4:16: chat_template is 'chatmll'; a Jinja template, or one of auto, alpaca, chatml, exaone, llama3, mistral; did you mean 'chatml'?"},
    {"merge_method: linear\nmodels: [{model: '@a', parameters: {weight: 1}}]\n---\nmerge_method: linear\n",
     "r:4:1: a recipe of 2 documents is not implemented yet; merge them one by one, the output of each a model of the next"},
};

}  // namespace

Test(recipe, errors) {
  const Bench bench;
  for (const Case &one : kCases) {
    const std::string got = bench.error(one.recipe);
    cr_expect(got == one.error, "recipe:\n%s\ngot:\n%s\nwant:\n%s", one.recipe, got.c_str(), one.error);
  }
}

// A file of a kilobyte that would expand to 10^9 nodes.
Test(recipe, aliases_are_bounded) {
  const Bench bench;
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before;
    for (int k = 1; k < 10; ++k) text += ", " + before;
    text += "]\n";
  }
  cr_assert(unit::contains(bench.error(text), "once all aliases are written out"), "%s", bench.error(text).c_str());
}

Test(recipe, nesting_is_bounded) {
  const Bench bench;
  cr_assert(unit::contains(bench.error(std::string(100000, '[')), "nested deeper"));
}

// Every prefix and every single changed byte of a recipe gives a plan or an error, never a crash.
Test(recipe, mutations_never_crash) {
  const Bench bench;
  const std::string text = bench.recipe(
      "merge_method: linear\nmodels: &x\n  - {model: '@a', parameters: {weight: [0.5, 1e-1]}}\n  - model: '@b'\n    parameters:\n"
      "      weight:\n      - filter: mlp\n        value: 0b11\n      - value: 1:30\ndtype: float32\n<<: {chat_template: \"{{ messages }} {{ more }}\"}\n");
  const chorus::Context context = unit::context();
  const auto plan = [&](const std::string &recipe) {
    chorus::MergerSpec spec;
    spec.set_recipe(recipe, "r");
    unit::Outcome outcome;
    chorus_merger *merger = nullptr;
    const chorus_status status = chorus_merger_create(context.get(), spec.get(), "reference", &merger, outcome.slot());
    cr_assert_eq(status == CHORUS_OK, merger != nullptr);
    cr_assert_neq(status, CHORUS_INTERNAL, "%s\n%s", recipe.c_str(), outcome.text().c_str());
    chorus_merger_destroy(merger);
    return status;
  };
  cr_assert_eq(plan(text), CHORUS_OK, "%s", bench.error(text).c_str());
  for (size_t length = 0; length < text.size(); length += 3) plan(text.substr(0, length));
  std::mt19937 random(3);
  const std::string bytes = ":-[]{}&*!|>'\"%@`#,? \n\t\x80\xff" "019.eE<~";
  for (int i = 0; i < 600; ++i) {
    std::string changed = text;
    for (int k = 0; k < 2; ++k) changed[random() % changed.size()] = bytes[random() % bytes.size()];
    plan(changed);
  }
}

Test(recipe, what_the_wild_carries_warns) {
  const Bench bench;
  chorus::MergerSpec spec;
  spec.set_recipe(bench.recipe(R"(
name: my-merge
merge_method: linear
random_seed: 7
models:
  - model: "@a"
    layer_range: [0, 2]
    parameters: {weight: 1, density: 0.5}
  - model: "@gone"
    parameters: {weight: 0}
parameters: {int8_mask: true}
)"), "r");
  const chorus::Merger merger(unit::context(), spec);
  std::string warnings;
  for (const std::string &warning : merger.warnings()) warnings += warning + "\n";
  for (const char *part : {"r:2:1: 'name' has no effect", "r:4:1: 'random_seed' has no effect", "r:7:5: 'layer_range' has no effect",
                           "r:8:29: parameter 'density' has no effect in linear", "r:11:14: parameter 'int8_mask' has no effect",
                           "its weight is 0, so it is not needed"}) {
    cr_expect(unit::contains(warnings, part), "'%s' is not in:\n%s", part, warnings.c_str());
  }
  cr_assert_eq(merger.plan().copied_count, merger.plan().tensor_count);
}

Test(recipe, missing_and_mismatched_tensors_are_named) {
  Bench bench;
  unit::Model less = bench.model("b"), wide = unit::random_model(5, CHORUS_BF16, 2, 64, 301);
  less.erase("model.layers.1.mlp.up_proj.weight");
  bench.add("less", less);
  bench.add("wide", wide);
  const std::string text = bench.error("merge_method: linear\nmodels:\n- model: '@a'\n- model: '@less'\n- model: '@wide'\nparameters: {weight: 1}\n");
  for (const char *part : {"r:4:3: tensor 'model.layers.1.mlp.up_proj.weight' is missing in '@less'; '@a' has it as [256, 64] BF16",
                           "r:5:3: tensor 'lm_head.weight' is [301, 64] BF16 in '@wide' and has the shape [300, 64] in '@a'; their vocabularies differ"}) {
    cr_expect(unit::contains(text, part), "'%s' is not in:\n%s", part, text.c_str());
  }
}

Test(recipe, a_tied_head_is_read_from_the_embedding) {
  Bench bench;
  unit::Model tied = bench.model("b");
  tied.erase("lm_head.weight");
  bench.add("tied", tied, "{\"num_hidden_layers\": 2, \"tie_word_embeddings\": true}");
  const unit::Model got = bench.merge("{merge_method: linear, models: [{model: '@tied'}, {model: '@a'}], parameters: {weight: 1}, dtype: float32}");
  for (size_t i = 0; i < got.at("lm_head.weight").values.size(); ++i) {
    const double want = (bench.model("b").at("model.embed_tokens.weight").values[i] + bench.model("a").at("lm_head.weight").values[i]) / 2;
    cr_assert(std::abs(got.at("lm_head.weight").values[i] - want) <= unit::ulp(CHORUS_F32, want));
  }
  cr_assert(unit::contains(unit::read_file(bench / "out/config.json"), "\"tie_word_embeddings\": false"));
}
