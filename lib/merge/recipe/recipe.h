// SPDX-License-Identifier: Apache-2.0
// A merge recipe in mergekit's language, read and checked as far as the text alone allows.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/storage_type.h"
#include "merge/methods/method.h"
#include "merge/recipe/value.h"

namespace chorus::merge {

// "path", "org/name@revision", with a "+lora" behind it.
struct ModelReference {
  std::string path;  // without the adapter
  std::string lora;  // "" without one
  Place place;

  std::string text() const { return lora.empty() ? path : path + "+" + lora; }
  bool operator==(const ModelReference &other) const { return path == other.path && lora == other.lora; }
};

using Parameters = std::map<std::string, Value>;

struct LayerRange {
  int64_t begin = 0, end = 0;
};

// A model as one input of a merge or slice.
struct Source {
  ModelReference model;
  std::optional<LayerRange> layers;
  Parameters parameters;
};

struct Slice {
  std::vector<Source> sources;
  std::optional<ModelReference> base;
  Parameters parameters;
  Place place;
};

// What `dtype` and its kin name; NULL: not given.
using DtypeChoice = const checkpoint::StorageType *;

struct Recipe {
  std::string file;  // for messages
  std::string text;  // as read
  const Method *method = nullptr;
  Place method_place;
  std::optional<ModelReference> base;
  std::vector<Source> models;  // of `models`
  std::vector<Slice> slices;   // of `slices`; one of the two is empty
  Parameters parameters;
  DtypeChoice dtype = nullptr, out_dtype = nullptr;
  std::optional<ModelReference> tokenizer_model;  // whose tokenizer files go with the output; nothing: the base's, else the first's
  std::string chat_template;                      // "": as it comes with the tokenizer
  Place tokenizer_place;
};

// Reads one recipe. Throws all errors at once; warnings stay in `diagnostics`.
Recipe parse_recipe(const std::string &text, Diagnostics *diagnostics);

}  // namespace chorus::merge
