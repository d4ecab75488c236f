// SPDX-License-Identifier: Apache-2.0
// How the texts of tokens become bytes again, step by step as tokenizer.json lists; and what a single token stands for.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace chorus::vocabulary {

class Decoder {
 public:
  // `rule` as in tokenizer.json, or null.
  explicit Decoder(const nlohmann::json &rule);

  struct Text {
    std::string text;
    bool is_added;  // the text of an added token is plain already
  };
  // Fails UNIMPLEMENTED for what reason() says.
  std::string decode(std::vector<Text> tokens) const;
  const std::string &reason() const { return reason_; }
  bool is_byte_level() const;
  bool marks_spaces() const;   // U+2581 becomes a space
  bool has_byte_tokens() const;

 private:
  enum class Kind { kByteLevel, kReplace, kByteFallback, kFuse, kStrip, kMetaspace };
  struct Step {
    Kind kind;
    std::string from, to;          // kReplace; kStrip, kMetaspace: the character in `from`
    size_t start = 0, stop = 0;    // kStrip
    bool strips_first = false;     // kMetaspace
  };
  void add(const nlohmann::json &rule, int depth);
  static void run(const Step &step, std::vector<Text> *tokens);
  std::vector<Step> steps_;
  std::string reason_;
  bool joins_with_spaces_ = false;
};

// The byte of "<0x0A>", or -1.
int byte_of_token(std::string_view text);

}  // namespace chorus::vocabulary
