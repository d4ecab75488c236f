// SPDX-License-Identifier: Apache-2.0
// Reading the fields of a rule of tokenizer.json; what is missing or of another type is its default.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace chorus::vocabulary {

inline std::string text_of(const nlohmann::json &rule, const char *name) {
  const auto found = rule.is_object() ? rule.find(name) : rule.end();
  return found != rule.end() && found->is_string() ? found->get<std::string>() : "";
}

inline bool flag_of(const nlohmann::json &rule, const char *name, bool missing) {
  const auto found = rule.is_object() ? rule.find(name) : rule.end();
  return found != rule.end() && found->is_boolean() ? found->get<bool>() : missing;
}

inline const nlohmann::json &member_of(const nlohmann::json &rule, const char *name) {
  static const nlohmann::json kNull;
  const auto found = rule.is_object() ? rule.find(name) : rule.end();
  return found != rule.end() ? *found : kNull;
}

}  // namespace chorus::vocabulary
