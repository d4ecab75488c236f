// SPDX-License-Identifier: Apache-2.0
// A tokenizer, and a text cut into the windows a model reads.
#pragma once
#include <string>
#include <vector>

#include "library.h"

namespace host {

class Tokenizer {
 public:
  // Reads tokenizer.json of `folder` through chorus_vocabulary_*.
  Tokenizer(const Library &library, const chorus_context *context, const std::string &folder);

  std::vector<int32_t> encode(const std::string &text) const;
  std::string decode(const std::vector<int32_t> &tokens) const;
  size_t size() const;
  // The token that stands between documents.
  int32_t end() const;

 private:
  const Library &library_;
  Handle<chorus_vocabulary> vocabulary_;
};

// What a model sees, and what comes next at each of its positions.
struct Window {
  std::vector<int32_t> inputs, targets;
};

struct Text {
  std::string name;
  size_t bytes = 0, tokens = 0;  // tokens: all targets
  std::vector<Window> windows;
};

// Each token of `content` is a target once; a window sees nothing of the one before it.
Text cut(const Tokenizer &tokenizer, const std::string &name, const std::string &content, size_t window);

std::string read_file(const std::string &path);

}  // namespace host
