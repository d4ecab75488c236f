// SPDX-License-Identifier: Apache-2.0
// What a tokenizer does to text before its model sees words: normalise, then split, step by step as tokenizer.json lists.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "vocabulary/split_rule.h"

namespace chorus::vocabulary {

// A part of the text: still to be encoded, or already a token.
struct Piece {
  std::string text;
  bool at_start = false;  // the text begins with it
  int32_t id = -1;        // of an added token
};

// Steps that change a text as a whole.
class Normalizer {
 public:
  // `rule` as in tokenizer.json, or null.
  explicit Normalizer(const nlohmann::json &rule);
  std::string apply(std::string text) const;
  // The first step that is not known; "" when all are.
  const std::string &reason() const { return reason_; }
  // True when it writes spaces as U+2581.
  bool marks_spaces() const;

 private:
  enum class Kind { kPrepend, kReplace, kStrip };
  struct Step {
    Kind kind;
    std::string from, to;  // kReplace; kPrepend: to
    bool left = false, right = false;
  };
  void add(const nlohmann::json &rule, int depth);
  std::vector<Step> steps_;
  std::string reason_;
};

// Steps that cut pieces into words.
class PreTokenizer {
 public:
  explicit PreTokenizer(const nlohmann::json &rule);
  std::vector<Piece> apply(std::vector<Piece> pieces) const;
  const std::string &reason() const { return reason_; }
  bool is_byte_level() const;
  bool marks_spaces() const;

 private:
  enum class Kind { kByteLevel, kSplit, kMetaspace };
  enum class Prefix { kNever, kFirst, kAlways };
  struct Step {
    Kind kind;
    MatchAt pattern = nullptr;  // kSplit by a pattern; NULL: by `literal`. kByteLevel: NULL: no split
    std::string literal = "";   // kMetaspace: what stands for a space
    Behavior behavior = Behavior::kIsolated;
    bool invert = false, split = true;
    Prefix prefix = Prefix::kNever;
  };
  void add(const nlohmann::json &rule, int depth);
  void add_split(const nlohmann::json &rule);
  void add_metaspace(const nlohmann::json &rule);
  void add_byte_level(const nlohmann::json &rule);
  static void run(const Step &step, Piece piece, std::vector<Piece> *out);
  std::vector<Step> steps_;
  std::string reason_;
};

}  // namespace chorus::vocabulary
