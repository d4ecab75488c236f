// SPDX-License-Identifier: Apache-2.0
// Typed reading of a model's config.json, with errors that name the field.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "runtime/error.h"

namespace chorus::route {

// Reads fields; null counts as absent.
struct Fields {
  const nlohmann::json &config;

  const nlohmann::json *find(const char *key) const {
    const auto it = config.find(key);
    return it == config.end() || it->is_null() ? nullptr : &*it;
  }
  std::optional<double> number(const char *key) const {
    const nlohmann::json *value = find(key);
    if (value == nullptr) return std::nullopt;
    if (value->is_boolean()) return value->get<bool>() ? 1.0 : 0.0;
    if (!value->is_number()) fail(CHORUS_DATA_LOSS, "config.json: {} is {}; a number is needed", key, value->type_name());
    return value->get<double>();
  }
  std::optional<int32_t> integer(const char *key) const {
    const auto value = number(key);
    if (!value) return std::nullopt;
    if (!(*value >= 0 && *value <= INT32_MAX) || *value != static_cast<int32_t>(*value)) {
      fail(CHORUS_DATA_LOSS, "config.json: {} is {}; a whole number of 0 to 2^31 - 1 is needed", key, *value);
    }
    return static_cast<int32_t>(*value);
  }
  std::string text(const char *key) const {
    const nlohmann::json *value = find(key);
    if (value == nullptr) return "";
    if (!value->is_string()) fail(CHORUS_DATA_LOSS, "config.json: {} is {}; a string is needed", key, value->type_name());
    return value->get<std::string>();
  }
  // The first that is there; newer files write some of these names for every model.
  int32_t required(std::initializer_list<const char *> keys) const {
    std::string names;
    for (const char *key : keys) {
      if (const auto value = integer(key)) return *value;
      names += (names.empty() ? "" : ", ") + std::string(key);
    }
    fail(CHORUS_DATA_LOSS, "config.json: none of {} is there; the router needs one", names);
  }
};

// The part of a config that says of the language model, in models that also see.
inline const nlohmann::json &text_config(const nlohmann::json &config) {
  if (!config.is_object()) fail(CHORUS_DATA_LOSS, "config.json is no object");
  const auto nested = config.find("text_config");
  return nested != config.end() && nested->is_object() ? *nested : config;
}

}  // namespace chorus::route
