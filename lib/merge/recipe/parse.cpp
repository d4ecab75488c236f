// SPDX-License-Identifier: Apache-2.0
// From YAML to a recipe: models, slices or modules, method, dtypes. Parameters are in parse_parameters.cpp, tokenizers in parse_tokenizer.cpp.
#include <algorithm>

#include "merge/recipe/fields.h"
#include "merge/recipe/parse.h"
#include "runtime/nearest.h"
#include "runtime/utf8.h"

namespace chorus::merge {
namespace {

// Keys that mergekit ignores and recipes carry.
const std::initializer_list<std::string> kInertTop = {"name", "random_seed", "description"};

class RecipeReader {
 public:
  RecipeReader(const Node &root, Diagnostics *diagnostics)
      : top_(root, "the recipe",
             {"merge_method", "models", "slices", "modules", "base_model", "parameters", "dtype", "out_dtype", "tokenizer_source",
              "tokenizer", "chat_template"},
             kInertTop, diagnostics),
        diagnostics_(diagnostics) {}

  Recipe read() {
    read_method();
    read_structure();
    if (const Node *base = top_.find("base_model")) recipe_.base = read_reference(*base, diagnostics_);
    read_parameters(top_, "parameters", Level::kGlobal, &recipe_.parameters);
    recipe_.dtype = read_dtype("dtype");
    recipe_.out_dtype = read_dtype("out_dtype");
    read_tokenizer(top_, &recipe_, diagnostics_);
    return std::move(recipe_);
  }

 private:
  void read_method() {
    const Node *node = top_.find("merge_method");
    recipe_.method_place = node != nullptr ? node->place : top_.place_of("merge_method");
    const std::string name = top_.text("merge_method");
    std::vector<std::string> known;
    for (const Method &method : methods()) known.emplace_back(method.name);
    if (node == nullptr) {
      diagnostics_->error(recipe_.method_place, "merge_method is missing; known: {}", fmt::join(known, ", "));
      return;
    }
    recipe_.method = find_method(name);
    if (recipe_.method != nullptr) return;
    const std::string guess = did_you_mean(name, known);
    recipe_.method = find_method(nearest(name, known));  // parameters are checked by what was meant
    diagnostics_->error(node->place, "unknown merge_method '{}'{}", shown(name),
                        guess.empty() ? fmt::format("; known: {}", fmt::join(known, ", ")) : guess);
  }

  void read_structure() {
    read_inputs(top_, "the recipe", true, &recipe_.models, &recipe_.slices);
    const Node *modules = top_.find("modules");
    if (modules == nullptr) return;
    if (modules->kind != Node::Kind::kMap || modules->entries.empty()) {
      diagnostics_->error(modules->place, "modules is {}; a map from names of modules to their models or slices is needed",
                          modules->kind == Node::Kind::kMap ? "empty" : kind_name(modules->kind));
      return;
    }
    for (const Entry &entry : modules->entries) read_module(entry);
  }

  void read_module(const Entry &entry) {
    const std::string what = fmt::format("module '{}'", shown(entry.key->text));
    const Fields fields(*entry.value, what, {"models", "slices", "parameters"}, {"name"}, diagnostics_);
    ModuleRecipe module;
    module.name = entry.key->text;
    module.place = entry.key->place;
    if (entry.value->kind == Node::Kind::kMap) read_inputs(fields, what, false, &module.models, &module.slices);
    read_parameters(fields, "parameters", Level::kSlice, &module.parameters);
    recipe_.modules.push_back(std::move(module));
  }

  // One of models and slices (at the top, or modules).
  void read_inputs(const Fields &fields, const std::string &where, bool top, std::vector<Source> *out, std::vector<Slice> *out_slices) {
    const Node *models = fields.list("models"), *slices = fields.list("slices");
    std::vector<std::string> given;
    for (const char *key : {"models", "slices", "modules"}) {
      if ((top || std::string_view(key) != "modules") && fields.find(key) != nullptr) given.emplace_back(key);
    }
    if (given.size() > 1) {
      diagnostics_->error(fields.place_of(given[1]), "{} and {} both stand in {}; one of them is needed", given[0], given[1], where);
    }
    if (given.empty()) {
      diagnostics_->error(fields.place_of("models"), "{} has neither models nor slices{}; one of them is needed", where, top ? " nor modules" : "");
    }
    if (models != nullptr) {
      if (models->items.empty()) diagnostics_->error(models->place, "models is empty");
      for (const NodePtr &item : models->items) {
        // mergekit ignores layer_range here.
        const Fields keys(*item, "an entry of models", {"model", "parameters"}, {"layer_range", "name"}, diagnostics_);
        out->push_back(read_source(*item, keys));
      }
    }
    if (slices != nullptr) {
      if (slices->items.empty()) diagnostics_->error(slices->place, "slices is empty");
      for (const NodePtr &item : slices->items) read_slice(*item, out_slices);
    }
  }

  Source read_source(const Node &node, const Fields &fields) {
    Source source;
    if (const Node *model = fields.find("model")) {
      source.model = read_reference(*model, diagnostics_);
    } else if (node.kind == Node::Kind::kMap) {
      diagnostics_->error(node.place, "this entry lacks 'model'");
    }
    source.model.place = node.place;
    read_parameters(fields, "parameters", Level::kModel, &source.parameters);
    return source;
  }

  void read_slice(const Node &node, std::vector<Slice> *out) {
    const Fields fields(node, "an entry of slices", {"sources", "base_model", "parameters"}, {"residual_weight", "name"}, diagnostics_);
    Slice slice;
    slice.place = node.place;
    if (const Node *base = fields.find("base_model")) slice.base = read_reference(*base, diagnostics_);
    read_parameters(fields, "parameters", Level::kSlice, &slice.parameters);
    const Node *sources = fields.list("sources");
    if (node.kind == Node::Kind::kMap && (sources == nullptr || sources->items.empty())) {
      diagnostics_->error(node.place, "this slice lacks 'sources', a list of models with their layer_range");
    }
    if (sources != nullptr) {
      for (const NodePtr &item : sources->items) {
        const Fields keys(*item, "an entry of sources", {"model", "layer_range", "parameters"}, {"name"}, diagnostics_);
        slice.sources.push_back(read_source(*item, keys));
        slice.sources.back().layers = read_range(*item, keys);
      }
      check_lengths(slice);
    }
    out->push_back(std::move(slice));
  }

  std::optional<LayerRange> read_range(const Node &node, const Fields &fields) {
    const Node *range = fields.list("layer_range");
    if (range == nullptr) {
      if (node.kind == Node::Kind::kMap && fields.find("layer_range") == nullptr) {
        diagnostics_->error(node.place, "this entry of sources lacks 'layer_range', for example [0, 16]");
      }
      return std::nullopt;
    }
    const bool pair = range->items.size() == 2 && std::ranges::all_of(range->items, [](const NodePtr &item) {
                        return item->kind == Node::Kind::kInteger && std::abs(item->number) < 1e9;
                      });
    if (!pair) {
      diagnostics_->error(range->place, "layer_range is a pair of whole numbers, first layer and one past the last: [0, 16]");
      return std::nullopt;
    }
    const LayerRange out{static_cast<int64_t>(range->items[0]->number), static_cast<int64_t>(range->items[1]->number)};
    if (out.begin < 0 || out.end <= out.begin) {
      diagnostics_->error(range->place, "layer_range is [{}, {}]; it begins at 0 or above and ends beyond its beginning", out.begin, out.end);
      return std::nullopt;
    }
    return out;
  }

  void check_lengths(const Slice &slice) {
    const auto length = [](const Source &source) { return source.layers->end - source.layers->begin; };
    const bool complete = std::ranges::all_of(slice.sources, [](const Source &source) { return source.layers.has_value(); });
    if (!complete || slice.sources.empty()) return;
    for (const Source &source : slice.sources) {
      if (length(source) == length(slice.sources[0])) continue;
      diagnostics_->error(source.model.place, "this source has {} layers, the first of its slice {}; all have as many",
                          length(source), length(slice.sources[0]));
    }
  }

  DtypeChoice read_dtype(const std::string &key) {
    std::string name = top_.text(key);
    if (name.empty()) return nullptr;
    if (name.starts_with("torch.")) name.erase(0, 6);
    const std::vector<std::pair<std::string, const char *>> names = {
        {"bfloat16", "BF16"}, {"float16", "F16"}, {"float32", "F32"}, {"float64", "F64"}, {"bf16", "BF16"},
        {"fp16", "F16"},      {"f16", "F16"},     {"half", "F16"},    {"fp32", "F32"},    {"f32", "F32"},
        {"float", "F32"},     {"double", "F64"}};
    for (const auto &[word, type] : names) {
      if (name == word) return checkpoint::storage_type(std::string_view(type));
    }
    const std::vector<std::string> words = {"bfloat16", "float16", "float32", "float64"};
    diagnostics_->error(top_.find(key)->place, "{} is '{}'; {} are allowed{}", key, shown(name), fmt::join(words, ", "),
                        did_you_mean(name, words));
    return nullptr;
  }

  void read_parameters(const Fields &fields, const std::string &key, Level level, Parameters *out) {
    const Node *node = fields.find(key);
    if (node != nullptr) parse_parameters(*node, recipe_.method, level, out, diagnostics_);
  }

  Fields top_;
  Diagnostics *diagnostics_;
  Recipe recipe_;
};

}  // namespace

std::vector<ModelReference> Recipe::references() const {
  std::vector<ModelReference> out;
  const auto add = [&](const std::optional<ModelReference> &reference) {
    if (reference && std::ranges::find(out, *reference) == out.end()) out.push_back(*reference);
  };
  const auto add_slices = [&](const std::vector<Slice> &list) {
    for (const Slice &slice : list) {
      add(slice.base);
      for (const Source &source : slice.sources) add(source.model);
    }
  };
  add(base);
  for (const Source &source : models) add(source.model);
  add_slices(slices);
  for (const ModuleRecipe &module : modules) {
    for (const Source &source : module.models) add(source.model);
    add_slices(module.slices);
  }
  if (tokenizer.source == TokenizerRecipe::Source::kModel) add(tokenizer.model);
  return out;
}

Recipe parse_recipe(const std::string &text, Diagnostics *diagnostics) {
  const std::vector<NodePtr> documents = parse_yaml(text, diagnostics);
  if (documents.empty() || documents[0]->kind == Node::Kind::kNull) {
    diagnostics->error({}, "the recipe is empty; it needs at least merge_method and models");
    diagnostics->throw_if_any();
  }
  if (documents.size() > 1) {
    diagnostics->unimplemented(documents[1]->place, "a recipe of {} documents is not implemented yet; merge them one by one, the output of each a model of the next", documents.size());
  }
  Recipe recipe = RecipeReader(*documents[0], diagnostics).read();
  recipe.file = diagnostics->file();
  recipe.text = text;
  diagnostics->throw_if_any();
  check_structure(recipe, diagnostics);
  diagnostics->throw_if_any();
  return recipe;
}

}  // namespace chorus::merge
