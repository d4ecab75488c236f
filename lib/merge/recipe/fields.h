// SPDX-License-Identifier: Apache-2.0
// Reading a map whose keys are known: misspelt ones are errors that name the nearest, inert ones warn.
#pragma once
#include <initializer_list>
#include <string>
#include <vector>

#include "merge/recipe/yaml.h"

namespace chorus::merge {

class Fields {
 public:
  // `node` should be a map; `where` for messages: "the recipe", "an entry of models". Checks the keys.
  Fields(const Node &node, std::string where, std::initializer_list<std::string> known,
         std::initializer_list<std::string> inert, Diagnostics *diagnostics);

  // NULL when the key is missing, or null.
  const Node *find(const std::string &key) const;
  // The place of the key itself; of the map when it is missing.
  Place place_of(const std::string &key) const;
  // The same, of the right kind; an error and NULL otherwise.
  const Node *list(const std::string &key) const;
  // Text of a scalar, "" when missing; an error for lists and maps.
  std::string text(const std::string &key) const;

 private:
  const Node &node_;
  std::string where_;
  Diagnostics *diagnostics_;
};

}  // namespace chorus::merge
