// SPDX-License-Identifier: Apache-2.0
// Tokenizer files for tests, and what opening them says.
#pragma once
#include <criterion/criterion.h>

#include <nlohmann/json.hpp>
#include <string>

#include "chorus/chorus.hpp"
#include "unit/outcome.h"
#include "unit/support.h"

namespace unit {

using Json = nlohmann::json;

inline const chorus::Context &context() {
  static const chorus::Context kContext = [] {
    chorus::ContextSpec spec;
    spec.set_option("plugins", "none");
    return chorus::Context(spec);
  }();
  return kContext;
}

// Names of tests/vectors/vocabularies.py.
constexpr const char *kNames[] = {"gpt2",  "gpt2-prefix",     "llama3",           "qwen2",           "o200k", "digits",
                                  "llama2", "gemma",          "metaspace-first",  "metaspace-always", "metaspace-never", "added"};

inline std::string vector_path(const std::string &name) {
  return std::string(CHORUS_SOURCE_DIR) + "/tests/vectors/vocabularies/" + name;
}

inline chorus::Vocabulary open_vector(const std::string &name) {
  return chorus::Vocabulary(context(), vector_path(name + ".json"));
}

// A small byte-level tokenizer: a, b, ab, and what `change` makes of it.
template <typename Change>
std::string tokenizer_text(Change change) {
  Json file = {{"model", {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}}}, {"merges", Json::array({Json::array({"a", "b"})})}}},
               {"decoder", {{"type", "ByteLevel"}}},
               {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
               {"added_tokens", Json::array()}};
  change(file);
  return file.dump();
}

// Status and text of opening a tokenizer.json that holds `text`.
inline Opening try_open(const std::string &text) {
  const TemporaryFolder folder;
  write_file(folder / "tokenizer.json", text);
  chorus_vocabulary *vocabulary = nullptr;
  chorus_error *error = nullptr;
  Opening out;
  out.status = chorus_vocabulary_open(context().get(), (folder / "tokenizer.json").c_str(), &vocabulary, &error);
  out.text = chorus_error_get_text(error);
  cr_expect_eq(vocabulary == nullptr, out.status != CHORUS_OK);
  chorus_error_destroy(error);
  chorus_vocabulary_destroy(vocabulary);
  return out;
}

}  // namespace unit
