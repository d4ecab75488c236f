// SPDX-License-Identifier: Apache-2.0
// A tokenizer.json taken apart: the long lists (vocabulary, merges) compactly, the rest as a small document. Untrusted.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vocabulary/string_table.h"

namespace chorus::vocabulary {

// One of the "added_tokens".
struct AddedToken {
  std::string content;
  uint32_t id = 0;
  bool single_word = false, left_strip = false, right_strip = false, normalized = true, special = false;
};

// The pairs of "merges" by their rank, as texts.
class MergeTexts {
 public:
  void add(std::string_view left, std::string_view right);
  size_t size() const { return spans_.size(); }
  std::pair<std::string_view, std::string_view> at(size_t rank) const;

 private:
  struct Span {
    uint64_t begin;
    uint32_t left, right;
  };
  std::string text_;
  std::vector<Span> spans_;
};

struct TokenizerFile {
  std::string path;
  nlohmann::json rest;   // the document without model.vocab and model.merges
  StringTable vocabulary;  // model.vocab: text of each id, indexed
  MergeTexts merges;
  std::vector<AddedToken> added;
};

// Fails DATA_LOSS with file and byte: not JSON, too deep, too large, a token or id twice, an id far beyond their number, a
// field of the wrong type; UNIMPLEMENTED: a model other than BPE.
TokenizerFile parse_tokenizer(const std::string &text, const std::string &path);

}  // namespace chorus::vocabulary
