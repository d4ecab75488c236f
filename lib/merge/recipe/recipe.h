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

// A part of models that have several (text_decoder, vision_tower, encoder …), merged by its own models or slices.
struct ModuleRecipe {
  std::string name;
  Place place;
  std::vector<Source> models;
  std::vector<Slice> slices;
  Parameters parameters;
};

// Where the row of a token comes from, in models that lack it, or in all with `force`.
struct TokenRule {
  enum class Kind { kZero, kModel, kModelToken };
  std::string token;
  Place place;
  Kind kind = Kind::kZero;
  ModelReference model;      // of kModel, kModelToken
  std::string source_token;  // of kModelToken, unless source_id is given
  int64_t source_id = -1;
  bool force = false;
};

// Whose vocabulary the output has.
struct TokenizerRecipe {
  enum class Source {
    kCopied,  // nothing said: files of the base, rows as they are
    kUnion,
    kBase,
    kModel,
  };
  Source source = Source::kCopied;
  ModelReference model;  // of kModel
  std::vector<TokenRule> tokens;
  uint64_t pad_to_multiple_of = 1;
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
  std::vector<Slice> slices;   // of `slices`; one of the three is empty
  std::vector<ModuleRecipe> modules;
  Parameters parameters;
  DtypeChoice dtype = nullptr, out_dtype = nullptr;
  TokenizerRecipe tokenizer;
  std::string chat_template;         // Jinja; "": as it comes with the tokenizer
  bool auto_chat_template = false;   // the one most inputs have

  // All models that are named, the base first, each once.
  std::vector<ModelReference> references() const;
};

// Reads one recipe. Throws all errors at once; warnings stay in `diagnostics`.
Recipe parse_recipe(const std::string &text, Diagnostics *diagnostics);

}  // namespace chorus::merge
