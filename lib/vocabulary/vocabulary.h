// SPDX-License-Identifier: Apache-2.0
// A vocabulary: the bytes of every token, text to ids and back.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "vocabulary/added_tokens.h"
#include "vocabulary/bpe.h"
#include "vocabulary/decoder.h"
#include "vocabulary/string_table.h"
#include "vocabulary/text_rules.h"

namespace chorus::vocabulary {

// Immutable; any thread.
class Vocabulary {
 public:
  // A tokenizer.json, a folder with one, or "org/name@revision" (chorus_vocabulary_open).
  static Vocabulary open(const std::string &path);

  size_t size() const { return flags_.size(); }
  std::string_view text(size_t id) const { return texts_.at(id); }
  std::string_view bytes(size_t id) const { return bytes_.at(id); }
  uint32_t flags(size_t id) const { return flags_[id]; }  // CHORUS_TOKEN_*
  bool is_special(size_t id) const;
  bool is_absent(size_t id) const;
  // The lowest id of these bytes, ordinary tokens first; -1 when there is none.
  int32_t find(std::string_view bytes) const { return bytes_.find(bytes); }
  std::array<uint64_t, 2> fingerprint() const;

  // `flags`: CHORUS_ENCODE_*. Fails INVALID_ARGUMENT (not UTF-8), UNIMPLEMENTED.
  std::vector<int32_t> encode(std::string_view text, uint32_t flags) const;
  // `flags`: CHORUS_DECODE_*. Fails OUT_OF_RANGE, UNIMPLEMENTED.
  std::string decode(const int32_t *ids, size_t count, uint32_t flags) const;

 private:
  explicit Vocabulary(TokenizerFile file);
  void fill_tokens(const TokenizerFile &file);
  void fill_bytes();
  std::string bytes_of_token(size_t id) const;
  void read_post_processor(const nlohmann::json &rule, int depth);
  void read_template(const nlohmann::json &rule);
  std::vector<Piece> split_added(std::string_view text, bool plain_special) const;

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  Decoder decoder_;
  Bpe model_;
  AddedTokens raw_added_, normalized_added_;  // looked for before and after the normalizer
  StringTable vocabulary_;                    // of the model alone
  StringTable texts_, bytes_;                 // of all tokens
  std::vector<uint32_t> flags_;
  std::vector<int32_t> before_, after_;  // what the post-processor adds around a text
  std::string post_reason_;
};

}  // namespace chorus::vocabulary
