// SPDX-License-Identifier: Apache-2.0
// Keys of a map against those that are known.
#include "merge/recipe/fields.h"

#include <algorithm>

#include "merge/methods/method.h"
#include "runtime/nearest.h"
#include "runtime/utf8.h"

namespace chorus::merge {

Fields::Fields(const Node &node, std::string where, std::initializer_list<std::string> known,
               std::initializer_list<std::string> inert, Diagnostics *diagnostics)
    : node_(node), where_(std::move(where)), diagnostics_(diagnostics) {
  if (node.kind != Node::Kind::kMap) {
    diagnostics->error(node.place, "{} is {}; a map with the keys {} is needed", where_, kind_name(node.kind), fmt::join(known, ", "));
    return;
  }
  const std::vector<std::string> words(known);
  const bool has_parameters = std::ranges::find(words, "parameters") != words.end();
  for (const Entry &entry : node.entries) {
    const std::string &key = entry.key->text;
    if (std::ranges::find(words, key) != words.end()) continue;
    if (std::ranges::find(inert, key) != inert.end()) {
      diagnostics->warning(entry.key->place, "'{}' has no effect in {}", key, where_);
    } else if (has_parameters && is_known_parameter(key)) {
      diagnostics->error(entry.key->place, "'{}' stands beside the keys of {}; it is a parameter: write it below 'parameters'", key,
                         where_);
    } else {
      const std::string guess = did_you_mean(key, words);
      diagnostics->error(entry.key->place, "unknown key '{}' in {}{}", shown(key), where_,
                         guess.empty() ? fmt::format("; known: {}", fmt::join(words, ", ")) : guess);
    }
  }
}

const Node *Fields::find(const std::string &key) const {
  for (const Entry &entry : node_.entries) {
    if (entry.key->text == key && entry.value->kind != Node::Kind::kNull) return entry.value.get();
  }
  return nullptr;
}

Place Fields::place_of(const std::string &key) const {
  for (const Entry &entry : node_.entries) {
    if (entry.key->text == key) return entry.key->place;
  }
  return node_.place;
}

const Node *Fields::list(const std::string &key) const {
  const Node *node = find(key);
  if (node == nullptr || node->kind == Node::Kind::kList) return node;
  diagnostics_->error(node->place, "{} is {}; a list is needed", key, kind_name(node->kind));
  return nullptr;
}

std::string Fields::text(const std::string &key) const {
  const Node *node = find(key);
  if (node == nullptr) return "";
  if (node->is_scalar()) return node->text;
  diagnostics_->error(node->place, "{} is {}; text is needed", key, kind_name(node->kind));
  return "";
}

}  // namespace chorus::merge
