// SPDX-License-Identifier: Apache-2.0
// The keys tokenizer_source, tokenizer and chat_template.
#include <algorithm>

#include "merge/recipe/chat_templates.h"
#include "merge/recipe/parse.h"
#include "runtime/nearest.h"
#include "runtime/utf8.h"

namespace chorus::merge {
namespace {

constexpr double kMostPadding = 1 << 20;

class TokenizerReader {
 public:
  TokenizerReader(const Fields &top, Recipe *recipe, Diagnostics *diagnostics) : top_(top), recipe_(*recipe), diagnostics_(diagnostics) {}

  void read() {
    const Node *source = top_.find("tokenizer_source"), *section = top_.find("tokenizer");
    recipe_.tokenizer.place = top_.place_of(section != nullptr ? "tokenizer" : "tokenizer_source");
    if (source != nullptr && section != nullptr) {
      diagnostics_->error(top_.place_of("tokenizer"), "tokenizer and tokenizer_source both stand in the recipe; one of them is needed");
    } else if (source != nullptr) {
      read_source(*source);
    } else if (section != nullptr) {
      read_section(*section);
    }
    read_chat_template();
  }

 private:
  void read_source(const Node &node) {
    TokenizerRecipe &out = recipe_.tokenizer;
    if (node.is_scalar() && node.text == "union") {
      out.source = TokenizerRecipe::Source::kUnion;
    } else if (node.is_scalar() && node.text == "base") {
      out.source = TokenizerRecipe::Source::kBase;
    } else {
      out.source = TokenizerRecipe::Source::kModel;
      out.model = read_reference(node, diagnostics_);
    }
  }

  void read_section(const Node &node) {
    const Fields fields(node, "tokenizer", {"source", "tokens", "pad_to_multiple_of"}, {}, diagnostics_);
    if (node.kind != Node::Kind::kMap) return;
    if (const Node *source = fields.find("source")) {
      read_source(*source);
    } else {
      diagnostics_->error(node.place, "tokenizer lacks 'source': union, base, or a model");
    }
    if (const Node *padding = fields.find("pad_to_multiple_of")) {
      if (padding->kind == Node::Kind::kInteger && padding->number >= 1 && padding->number <= kMostPadding) {
        recipe_.tokenizer.pad_to_multiple_of = static_cast<uint64_t>(padding->number);
      } else {
        diagnostics_->error(padding->place, "pad_to_multiple_of is {}; a whole number of at least 1 is needed", shown(padding->text));
      }
    }
    const Node *tokens = fields.find("tokens");
    if (tokens == nullptr) return;
    if (tokens->kind != Node::Kind::kMap) {
      diagnostics_->error(tokens->place, "tokens is {}; a map from tokens to {{source, force}} is needed", kind_name(tokens->kind));
      return;
    }
    for (const Entry &entry : tokens->entries) read_token(entry);
  }

  void read_token(const Entry &entry) {
    const Fields fields(*entry.value, fmt::format("token '{}'", shown(entry.key->text)), {"source", "force"}, {}, diagnostics_);
    if (entry.value->kind != Node::Kind::kMap) return;
    TokenRule rule;
    rule.token = entry.key->text;
    rule.place = entry.key->place;
    if (const Node *force = fields.find("force")) {
      if (force->kind != Node::Kind::kBoolean) diagnostics_->error(force->place, "force is {}; true or false is needed", kind_name(force->kind));
      rule.force = force->kind == Node::Kind::kBoolean && force->number != 0;
    }
    const Node *source = fields.find("source");
    if (source == nullptr) {
      diagnostics_->error(entry.value->place, "this token lacks 'source': a model, {{kind: zero}} or {{kind: model_token, model, token}}");
      return;
    }
    read_token_source(*source, &rule);
    recipe_.tokenizer.tokens.push_back(std::move(rule));
  }

  void read_token_source(const Node &node, TokenRule *rule) {
    const bool has_kind = node.kind == Node::Kind::kMap &&
                          std::ranges::any_of(node.entries, [](const Entry &entry) { return entry.key->text == "kind"; });
    if (!has_kind) {
      rule->kind = TokenRule::Kind::kModel;
      rule->model = read_reference(node, diagnostics_);
      return;
    }
    const Fields fields(node, "the source of a token", {"kind", "model", "token", "token_id"}, {}, diagnostics_);
    const std::string kind = fields.text("kind");
    const std::vector<std::string> kinds = {"zero", "model_token"};
    if (kind == "zero") return;
    if (kind != "model_token") {
      diagnostics_->error(fields.place_of("kind"), "kind is '{}'; zero and model_token are allowed{}", shown(kind), did_you_mean(kind, kinds));
      return;
    }
    rule->kind = TokenRule::Kind::kModelToken;
    if (const Node *model = fields.find("model")) {
      rule->model = read_reference(*model, diagnostics_);
    } else {
      diagnostics_->error(node.place, "kind model_token lacks 'model'");
    }
    const Node *token = fields.find("token"), *id = fields.find("token_id");
    if ((token == nullptr) == (id == nullptr)) {
      diagnostics_->error(node.place, "kind model_token takes one of 'token' and 'token_id'");
    } else if (token != nullptr) {
      rule->source_token = fields.text("token");
    } else if (id->kind != Node::Kind::kInteger || id->number < 0 || id->number > 1e9) {
      diagnostics_->error(id->place, "token_id is {}; a whole number of at least 0 is needed", shown(id->text));
    } else {
      rule->source_id = static_cast<int64_t>(id->number);
    }
  }

  // Literal Jinja is told from a name as mergekit does.
  void read_chat_template() {
    const Node *node = top_.find("chat_template");
    if (node == nullptr) return;
    const std::string text = top_.text("chat_template");
    const char *named = chat_template_named(text);
    recipe_.auto_chat_template = text == "auto";
    if (named != nullptr) recipe_.chat_template = named;
    if (named != nullptr || recipe_.auto_chat_template) return;
    if (text.size() >= 20 && text.find('{') != std::string::npos) {
      recipe_.chat_template = text;
      return;
    }
    std::vector<std::string> names = chat_template_names();
    names.insert(names.begin(), "auto");
    diagnostics_->error(node->place, "chat_template is '{}'; a Jinja template, or one of {}{}", shown(text), fmt::join(names, ", "),
                        did_you_mean(text, names));
  }

  const Fields &top_;
  Recipe &recipe_;
  Diagnostics *diagnostics_;
};

}  // namespace

void read_tokenizer(const Fields &top, Recipe *recipe, Diagnostics *diagnostics) { TokenizerReader(top, recipe, diagnostics).read(); }

}  // namespace chorus::merge
