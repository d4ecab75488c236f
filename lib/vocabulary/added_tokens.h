// SPDX-License-Identifier: Apache-2.0
// Finding added tokens in text: the leftmost, of those the longest; then the rules of single words and of stripped space.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "vocabulary/tokenizer_file.h"

namespace chorus::vocabulary {

class AddedTokens {
 public:
  // `patterns[i]` is what `tokens[i]` looks like in the text.
  AddedTokens(std::vector<AddedToken> tokens, std::vector<std::string> patterns);

  struct Part {
    size_t begin, end;
    int32_t id;  // -1: no token
  };
  // Covers `text`. Costs at most the longest pattern per byte. `plain_special`: special tokens are text.
  std::vector<Part> split(std::string_view text, bool plain_special) const;

 private:
  struct Entry {
    std::string pattern;
    AddedToken token;
  };
  const Entry *longest_at(std::string_view text, size_t at) const;

  std::vector<Entry> entries_;  // by pattern
  bool begins_[256] = {};       // bytes that patterns begin with
};

}  // namespace chorus::vocabulary
