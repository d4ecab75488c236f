// SPDX-License-Identifier: Apache-2.0
// Tokenising by chorus_vocabulary_*, and windows.
#include "text.h"

#include <algorithm>
#include <fstream>
#include <iterator>

namespace host {

Tokenizer::Tokenizer(const Library &library, const chorus_context *context, const std::string &folder)
    : library_(library), vocabulary_(library.make(library.chorus_vocabulary_destroy, [&](auto **out, auto **error) {
        return library.chorus_vocabulary_open(context, folder.c_str(), out, error);
      })) {}

std::vector<int32_t> Tokenizer::encode(const std::string &text) const {
  std::vector<int32_t> tokens(text.size());  // byte-level: never more tokens than bytes
  size_t count = 0;
  library_.check([&](chorus_error **error) {
    return library_.chorus_vocabulary_encode(vocabulary_.get(), text.data(), text.size(), 0, tokens.data(),
                                             tokens.size(), &count, error);
  });
  tokens.resize(count);
  return tokens;
}

std::string Tokenizer::decode(const std::vector<int32_t> &tokens) const {
  const auto call = [&](char *text, size_t capacity) {
    size_t length = 0;
    library_.check([&](chorus_error **error) {
      return library_.chorus_vocabulary_decode(vocabulary_.get(), tokens.data(), tokens.size(),
                                               CHORUS_DECODE_SKIP_SPECIAL, text, capacity, &length, error);
    });
    return length;
  };
  std::string text(call(nullptr, 0), '\0');
  if (!text.empty()) call(text.data(), text.size());
  return text;
}

size_t Tokenizer::size() const { return library_.chorus_vocabulary_get_size(vocabulary_.get()); }

int32_t Tokenizer::end() const {
  const std::string name = "<|endoftext|>";
  const int32_t token = library_.chorus_vocabulary_find(vocabulary_.get(), name.data(), name.size());
  if (token < 0) throw std::runtime_error("the tokenizer has no token " + name);
  return token;
}

Text cut(const Tokenizer &tokenizer, const std::string &name, const std::string &content, size_t window) {
  Text text{name, content.size(), 0, {}};
  std::vector<int32_t> tokens = tokenizer.encode(content);
  text.tokens = tokens.size();
  tokens.insert(tokens.begin(), tokenizer.end());
  for (size_t first = 0; first < text.tokens; first += window) {
    const auto from = tokens.begin() + static_cast<std::ptrdiff_t>(first);
    const auto count = static_cast<std::ptrdiff_t>(std::min(window, text.tokens - first));
    text.windows.push_back({{from, from + count}, {from + 1, from + 1 + count}});
  }
  return text;
}

std::string read_file(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace host
