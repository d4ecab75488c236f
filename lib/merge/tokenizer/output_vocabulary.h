// SPDX-License-Identifier: Apache-2.0
// The vocabulary of an output whose recipe asks for one (tokenizer_source, tokenizer).
#pragma once
#include <cstdint>
#include <string>

namespace chorus::merge {

struct OutputVocabulary {
  int64_t tokens = 0;  // one past the highest id
  int64_t rows = 0;    // of the embedding: with padding
  std::string folder;  // whose tokenizer it is, or grew from
  bool changed = false;  // tokens were added to it or taken away: these texts replace its files
  std::string json, config;  // tokenizer.json; tokenizer_config.json, "" for none
};

}  // namespace chorus::merge
