// SPDX-License-Identifier: Apache-2.0
// mergekit's rules: an input's own row first; else what the recipe says; else the row of the only owner, of the base, or the mean of the
// owners' rows. Ids of a union: the base's as they are, then tokens of the other inputs in their order, plain ones before added ones.
#include "merge/tokenizer/vocabulary_merge.h"

#include <algorithm>
#include <filesystem>

#include "checkpoint/convert.h"
#include "merge/tokenizer/row_view.h"
#include "merge/tokenizer/tokenizer_json.h"
#include "runtime/nearest.h"
#include "runtime/utf8.h"

namespace chorus::merge {
namespace {

using checkpoint::Tensor;

// Rows that a model's config says its embedding has.
std::optional<int64_t> vocabulary_size(const checkpoint::Model &model) {
  if (model.config_text().empty()) return std::nullopt;
  const nlohmann::json &config = model.config();
  for (const char *section : {"", "text_config", "llm_config"}) {
    const nlohmann::json *at = &config;
    if (*section != 0) {
      const auto found = config.find(section);
      if (found == config.end() || !found->is_object()) continue;
      at = &*found;
    }
    const auto size = at->find("vocab_size");
    if (size != at->end() && size->is_number_integer() && size->get<int64_t>() > 0) return size->get<int64_t>();
  }
  return std::nullopt;
}

bool is_by_token(const Tensor &tensor) {
  if (tensor.role.layer >= 0 || tensor.role.expert >= 0 || tensor.shape.empty()) return false;
  return tensor.role.kind == CHORUS_TENSOR_KIND_EMBEDDING || tensor.role.kind == CHORUS_TENSOR_KIND_HEAD || tensor.name == "shared.weight";
}

const checkpoint::StorageType *promoted(const checkpoint::StorageType *a, const checkpoint::StorageType *b) {
  if (a == nullptr || a == b) return b;
  if (a->bits() != b->bits()) return a->bits() > b->bits() ? a : b;
  return checkpoint::storage_type(CHORUS_F32);  // bf16 with f16
}

// A model that is merged, with its tokens.
struct Vocabulary {
  InputModel *input;
  std::optional<TokenizerJson> own;
  const TokenizerJson *tokens = nullptr;  // its own, or the base's
  int64_t size = 0;                       // tokens with higher ids have no row
};

class VocabularyMerge {
 public:
  VocabularyMerge(const Recipe &recipe, std::vector<InputModel> *inputs, Diagnostics *diagnostics)
      : recipe_(recipe), inputs_(*inputs), diagnostics_(diagnostics) {}

  std::optional<OutputVocabulary> run() {
    if (!load()) return std::nullopt;
    TokenizerJson output = make_output();
    for (const TokenRule &rule : recipe_.tokenizer.tokens) output.add(rule.token, nullptr);
    OutputVocabulary out;
    out.tokens = output.end();
    const auto multiple = static_cast<int64_t>(recipe_.tokenizer.pad_to_multiple_of);
    out.rows = (out.tokens + multiple - 1) / multiple * multiple;
    out.folder = output.folder();
    out.changed = output.changed();
    if (out.changed) out.json = output.json_text();
    if (out.changed) out.config = output.config_text();
    make_table(output, out.rows);
    if (!diagnostics_->has_errors()) make_views();
    return out;
  }

 private:
  // The base first. A model that is there for its tokenizer alone is none of them.
  bool load() {
    std::vector<ModelReference> order = merged_references();
    for (const ModelReference &reference : order) {
      const auto input = std::ranges::find_if(inputs_, [&](const InputModel &one) { return one.reference == reference; });
      if (input->model != nullptr) models_.push_back({&*input, std::nullopt, nullptr, 0});
    }
    for (size_t i = 0; i < models_.size(); ++i) {
      Vocabulary &model = models_[i];
      try {
        std::error_code ignored;
        const std::string &folder = model.input->model->folder();
        if (i > 0 && !std::filesystem::exists(folder + "/tokenizer.json", ignored)) {
          diagnostics_->warning(model.input->reference.place, "'{}' has no tokenizer.json; that of '{}' is taken for it",
                                model.input->reference.text(), models_[0].input->reference.text());
        } else {
          model.own = TokenizerJson::load(folder);
        }
        const TokenizerJson &tokens = model.own ? *model.own : *models_[0].own;
        model.size = vocabulary_size(*model.input->model).value_or(tokens.end());
      } catch (const Failure &failure) {
        diagnostics_->error_because(recipe_.tokenizer.place, fmt::format("the tokenizer of '{}' cannot be read", model.input->reference.text()), failure);
        return false;
      }
    }
    for (Vocabulary &model : models_) model.tokens = model.own ? &*model.own : &*models_[0].own;
    return !models_.empty();
  }

  std::vector<ModelReference> merged_references() const {
    Recipe merged = recipe_;
    merged.tokenizer = {};
    return merged.references();
  }

  TokenizerJson make_output() {
    if (recipe_.tokenizer.source == TokenizerRecipe::Source::kModel) {
      const auto input = std::ranges::find_if(inputs_, [&](const InputModel &one) { return one.reference == recipe_.tokenizer.model; });
      try {
        return TokenizerJson::load(input->model->folder());
      } catch (const Failure &failure) {
        diagnostics_->error_because(recipe_.tokenizer.place, "the tokenizer of tokenizer_source cannot be read", failure);
      }
    }
    TokenizerJson out = *models_[0].own;
    out.strip(models_[0].size);
    if (recipe_.tokenizer.source != TokenizerRecipe::Source::kUnion) return out;
    for (const bool added : {false, true}) {
      for (const Vocabulary &model : models_) {
        for (const auto &[id, token] : model.tokens->ordered(added)) {
          if (id < model.size) out.add(token, model.tokens);
        }
      }
    }
    return out;
  }

  // The row of a token in a model, -1 for none.
  static int64_t row_of(const Vocabulary &model, const std::string &token) {
    const int64_t id = model.tokens->id_of(token);
    return id < model.size ? id : -1;
  }

  void make_table(const TokenizerJson &output, int64_t rows) {
    auto table = std::make_shared<RowTable>();
    table->rows = rows;
    const auto tokens = static_cast<size_t>(output.end());
    table->otherwise.resize(tokens);
    table->own.assign(models_.size(), std::vector<int64_t>(tokens, -1));
    for (const auto &[token, id] : output.ids()) {
      for (size_t i = 0; i < models_.size(); ++i) table->own[i][static_cast<size_t>(id)] = row_of(models_[i], token);
    }
    std::vector<bool> has_rule(tokens);
    for (const TokenRule &rule : recipe_.tokenizer.tokens) {
      const auto id = static_cast<size_t>(output.id_of(rule.token));
      has_rule[id] = true;
      table->otherwise[id] = by_rule(rule);
    }
    size_t orphans = 0;
    for (size_t token = 0; token < tokens; ++token) {
      if (!has_rule[token]) table->otherwise[token] = by_owners(*table, token, &orphans);
    }
    if (orphans > 0) diagnostics_->warning(recipe_.tokenizer.place, "{} tokens of the output have a row in no model; they get zeros", orphans);
    table_ = std::move(table);
  }

  RowTable::Otherwise by_owners(const RowTable &table, size_t token, size_t *orphans) const {
    std::vector<size_t> owners;
    for (size_t i = 0; i < models_.size(); ++i) {
      if (table.own[i][token] >= 0) owners.push_back(i);
    }
    using Kind = RowTable::Otherwise::Kind;
    if (owners.empty()) ++*orphans;
    if (owners.empty()) return {};
    const bool base_is_one = recipe_.base && owners[0] == 0;  // the base is the first model
    if (owners.size() == 1 || base_is_one) return {Kind::kRow, owners[0], table.own[owners[0]][token], false};
    return {Kind::kMean, 0, 0, false};
  }

  RowTable::Otherwise by_rule(const TokenRule &rule) {
    RowTable::Otherwise out;
    out.force = rule.force;
    if (rule.kind == TokenRule::Kind::kZero) return out;
    const auto model = std::ranges::find_if(models_, [&](const Vocabulary &one) { return one.input->reference == rule.model; });
    if (model == models_.end()) {
      std::vector<std::string> names;
      for (const Vocabulary &one : models_) names.push_back(one.input->reference.text());
      diagnostics_->error(rule.model.place, "'{}' is none of the models that are merged: {}{}", rule.model.text(), fmt::join(names, ", "),
                          did_you_mean(rule.model.text(), names));
      return out;
    }
    out.kind = RowTable::Otherwise::Kind::kRow;
    out.input = static_cast<size_t>(model - models_.begin());
    const std::string &token = rule.kind == TokenRule::Kind::kModelToken ? rule.source_token : rule.token;
    out.row = rule.source_id >= 0 ? rule.source_id : row_of(*model, token);
    if (rule.source_id >= model->size) {
      diagnostics_->error(rule.place, "token_id is {}; '{}' has the tokens 0 to {}", rule.source_id, rule.model.text(), model->size - 1);
    } else if (out.row < 0) {
      diagnostics_->error(rule.place, "token '{}' is not in '{}'", shown(token), rule.model.text());
    }
    return out;
  }

  // Tensors by token of every name that a model has; a model without a head of its own gives its embedding's rows.
  void make_views() {
    std::vector<std::string> names;
    for (const Vocabulary &model : models_) {
      for (const Tensor *tensor : model.input->tensors()) {
        if (is_by_token(*tensor) && std::ranges::find(names, tensor->name) == names.end()) names.push_back(tensor->name);
      }
    }
    std::vector<std::pair<InputModel *, std::shared_ptr<const TensorView>>> views;
    for (const std::string &name : names) add_views(name, &views);
    for (auto &[input, view] : views) input->views[view->tensor().name] = view;
  }

  void add_views(const std::string &name, std::vector<std::pair<InputModel *, std::shared_ptr<const TensorView>>> *views) {
    auto sources = std::make_shared<std::vector<RowSource>>();
    const checkpoint::StorageType *type = nullptr;
    for (const Vocabulary &model : models_) {
      const Tensor *tensor = source_of(*model.input, name);
      sources->push_back({model.input->model, tensor, tensor != nullptr ? model.input->view_of(*tensor) : nullptr});
      if (tensor != nullptr) type = promoted(type, tensor->type);
    }
    for (size_t i = 0; i < models_.size(); ++i) {
      const Tensor *stored = models_[i].input->find(name);
      if (stored == nullptr || !has_rows(models_[i], *stored)) continue;
      if (!can_read(*sources, i, name) || (table_->is_identity(i, stored->shape[0]) && stored->type == type)) continue;
      Tensor tensor = *stored;
      tensor.shape[0] = table_->rows;
      tensor.type = type;
      views->emplace_back(models_[i].input, std::make_shared<RowView>(std::move(tensor), i, table_, sources));
    }
  }

  static const Tensor *source_of(const InputModel &input, const std::string &name) {
    const Tensor *stored = input.find(name);
    if (stored != nullptr || checkpoint::role_of(name).kind != CHORUS_TENSOR_KIND_HEAD) return stored;
    for (const Tensor *tensor : input.tensors()) {
      if (tensor->role.kind == CHORUS_TENSOR_KIND_EMBEDDING && tensor->role.layer < 0) return tensor;
    }
    return nullptr;
  }

  // Every row that the table asks of this model is in the tensor.
  bool has_rows(const Vocabulary &model, const Tensor &tensor) {
    const int64_t needed = std::min(model.size, model.tokens->end());
    if (tensor.shape[0] >= needed && checkpoint::can_convert(tensor.type->dtype, CHORUS_F64)) return true;
    diagnostics_->error(recipe_.tokenizer.place, "tensor '{}' of '{}' is [{}] {}; its tokenizer and config.json have {} tokens", tensor.name,
                        model.input->reference.text(), fmt::join(tensor.shape, ", "), tensor.type->name, needed);
    return false;
  }

  // Rows of other models have the same length.
  bool can_read(const std::vector<RowSource> &sources, size_t i, const std::string &name) {
    const Tensor &own = *sources[i].tensor;
    for (size_t k = 0; k < sources.size(); ++k) {
      const Tensor *other = sources[k].tensor;
      if (other != nullptr && std::equal(own.shape.begin() + 1, own.shape.end(), other->shape.begin() + 1, other->shape.end())) continue;
      const bool is_asked = std::ranges::any_of(table_->otherwise, [&](const RowTable::Otherwise &one) {
        return one.kind == RowTable::Otherwise::Kind::kMean || (one.kind == RowTable::Otherwise::Kind::kRow && one.input == k);
      });
      if (!is_asked) continue;
      if (other == nullptr) {
        const bool takes_row = std::ranges::any_of(table_->otherwise, [&](const RowTable::Otherwise &one) {
          return one.kind == RowTable::Otherwise::Kind::kRow && one.input == k;
        });
        if (!takes_row) continue;  // means are of the others
        diagnostics_->error(recipe_.tokenizer.place, "tensor '{}' is missing in '{}', whose rows of tokens '{}' takes", name,
                            models_[k].input->reference.text(), models_[i].input->reference.text());
        return false;
      }
      diagnostics_->error(recipe_.tokenizer.place, "tensor '{}' is [{}] in '{}' and [{}] in '{}'; rows of tokens have one length", name,
                          fmt::join(own.shape, ", "), models_[i].input->reference.text(), fmt::join(other->shape, ", "),
                          models_[k].input->reference.text());
      return false;
    }
    return true;
  }

  const Recipe &recipe_;
  std::vector<InputModel> &inputs_;
  Diagnostics *diagnostics_;
  std::vector<Vocabulary> models_;
  std::shared_ptr<const RowTable> table_;
};

}  // namespace

std::optional<OutputVocabulary> merge_vocabularies(const Recipe &recipe, std::vector<InputModel> *inputs, Diagnostics *diagnostics) {
  if (recipe.tokenizer.source == TokenizerRecipe::Source::kCopied) return std::nullopt;
  return VocabularyMerge(recipe, inputs, diagnostics).run();
}

}  // namespace chorus::merge
