// SPDX-License-Identifier: Apache-2.0
// YAML as PyYAML reads it (YAML 1.1: merge keys, yes/no, 1e-3 a string), every node with its line and column. Untrusted:
// bounded in size, depth and in what aliases expand to.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "merge/recipe/diagnostics.h"

namespace chorus::merge {

struct Node;
using NodePtr = std::shared_ptr<const Node>;

struct Entry {
  NodePtr key, value;
};

struct Node {
  enum class Kind { kNull, kBoolean, kInteger, kNumber, kText, kList, kMap };
  Kind kind = Kind::kNull;
  Place place;
  std::string text;             // of a scalar, as written
  double number = 0;            // of a boolean (0, 1), integer, number
  std::vector<NodePtr> items;   // of a list
  std::vector<Entry> entries;   // of a map, merge keys resolved, each key once
  size_t expanded = 1;          // nodes with all aliases written out

  bool is_scalar() const { return kind != Kind::kList && kind != Kind::kMap; }
};

// "a list", for messages.
const char *kind_name(Node::Kind kind);

constexpr size_t kMaxRecipeBytes = size_t{4} << 20;

// The documents of `text`. What is no YAML, is too deep, or expands to too much throws at once; keys that stand twice
// warn (the last counts, as in PyYAML).
std::vector<NodePtr> parse_yaml(const std::string &text, Diagnostics *diagnostics);

// Kind and number of a plain scalar by PyYAML's resolver.
void resolve_plain(Node *scalar);

// The number that Python's float() makes of `text` ("1e-3", "0.5", " 1_0 "); false when it makes none.
bool python_float(const std::string &text, double *out);

}  // namespace chorus::merge
