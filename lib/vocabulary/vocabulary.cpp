// SPDX-License-Identifier: Apache-2.0
// Putting a tokenizer file together: tables of tokens, the steps of its pipeline, and the two directions through it.
#include "vocabulary/vocabulary.h"

#include <xxhash.h>

#include <algorithm>
#include <filesystem>

#include "chorus/vocabulary.h"
#include "runtime/error.h"
#include "runtime/files.h"
#include "runtime/locate.h"
#include "runtime/utf8.h"
#include "vocabulary/byte_alphabet.h"
#include "vocabulary/rule_field.h"

namespace chorus::vocabulary {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;
constexpr const char *kFileName = "tokenizer.json";

std::string path_of_tokenizer(const std::string &path) {
  const std::string found = locate(path);
  std::error_code ignored;
  if (!std::filesystem::is_directory(found, ignored)) return found;
  const std::string file = found + "/" + kFileName;
  if (!std::filesystem::exists(file, ignored)) fail(CHORUS_NOT_FOUND, "{} has no {}", found, kFileName);
  return file;
}

// The added tokens that are looked for in normalised text, or those in the text as it is.
AddedTokens matcher(const std::vector<AddedToken> &added, bool normalized, const Normalizer &normalizer) {
  std::vector<AddedToken> tokens;
  std::vector<std::string> patterns;
  for (const AddedToken &token : added) {
    if (token.normalized != normalized) continue;
    tokens.push_back(token);
    patterns.push_back(normalized ? normalizer.apply(token.content) : token.content);
  }
  return AddedTokens(std::move(tokens), std::move(patterns));
}

}  // namespace

Vocabulary Vocabulary::open(const std::string &path) {
  const std::string file = path_of_tokenizer(path);
  return Vocabulary(parse_tokenizer(read_text(file, kMaxFileBytes), file));
}

Vocabulary::Vocabulary(TokenizerFile file)
    : normalizer_(member_of(file.rest, "normalizer")),
      pre_tokenizer_(member_of(file.rest, "pre_tokenizer")),
      decoder_(member_of(file.rest, "decoder")),
      model_(file),
      raw_added_(matcher(file.added, false, normalizer_)),
      normalized_added_(matcher(file.added, true, normalizer_)) {
  fill_tokens(file);
  vocabulary_ = std::move(file.vocabulary);
  fill_bytes();
  read_post_processor(member_of(file.rest, "post_processor"), 0);
}

void Vocabulary::fill_tokens(const TokenizerFile &file) {
  size_t size = file.vocabulary.size();
  for (const AddedToken &token : file.added) size = std::max<size_t>(size, size_t{token.id} + 1);
  texts_.reserve_ids(size);
  flags_.assign(size, CHORUS_TOKEN_ABSENT);
  for (size_t id = 0; id < file.vocabulary.size(); ++id) {
    if (!file.vocabulary.has(id)) continue;
    texts_.put(id, file.vocabulary.at(id));
    flags_[id] = 0;
  }
  for (const AddedToken &token : file.added) {
    if (!texts_.has(token.id)) {
      texts_.put(token.id, token.content);
    } else if (texts_.at(token.id) != token.content) {
      fail(CHORUS_DATA_LOSS, "{}: tokens '{}' and '{}' have the same id {}", file.path, shown(texts_.at(token.id)),
           shown(token.content), token.id);
    }
    flags_[token.id] = (flags_[token.id] & ~CHORUS_TOKEN_ABSENT) | CHORUS_TOKEN_ADDED |
                       (token.special ? CHORUS_TOKEN_SPECIAL : 0u);
  }
}

std::string Vocabulary::bytes_of_token(size_t id) const {
  const std::string text(texts_.at(id));
  if ((flags_[id] & CHORUS_TOKEN_SPECIAL) != 0) return text;
  if ((flags_[id] & CHORUS_TOKEN_BYTE) != 0) return std::string(1, static_cast<char>(byte_of_token(text)));
  if (pre_tokenizer_.is_byte_level() || decoder_.is_byte_level()) {
    if ((flags_[id] & CHORUS_TOKEN_ADDED) != 0) return text;
    return from_byte_alphabet(text).value_or(text);
  }
  if (!normalizer_.marks_spaces() && !pre_tokenizer_.marks_spaces() && !decoder_.marks_spaces()) return text;
  std::string out;
  for (const Range &range : find_literal(text, "\u2581")) {
    if (range.is_match) out += ' ';
    else out.append(text, range.begin, range.end - range.begin);
  }
  return out;
}

void Vocabulary::fill_bytes() {
  bytes_.reserve_ids(size());
  std::vector<bool> last(size());
  for (size_t id = 0; id < size(); ++id) {
    if (is_absent(id)) continue;
    const bool is_byte = decoder_.has_byte_tokens() && byte_of_token(texts_.at(id)) >= 0;
    if (is_byte && !is_special(id)) flags_[id] |= CHORUS_TOKEN_BYTE;
    last[id] = is_special(id);
    bytes_.put(id, bytes_of_token(id));
  }
  bytes_.index(last);
}

bool Vocabulary::is_special(size_t id) const { return (flags_[id] & CHORUS_TOKEN_SPECIAL) != 0; }
bool Vocabulary::is_absent(size_t id) const { return (flags_[id] & CHORUS_TOKEN_ABSENT) != 0; }

std::array<uint64_t, 2> Vocabulary::fingerprint() const {
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  for (size_t id = 0; id < size(); ++id) {
    const std::string_view bytes = bytes_.at(id);
    const uint32_t head[2] = {flags_[id] & (CHORUS_TOKEN_ABSENT | CHORUS_TOKEN_SPECIAL), static_cast<uint32_t>(bytes.size())};
    unsigned char little[8];
    for (int i = 0; i < 8; ++i) little[i] = static_cast<unsigned char>(head[i / 4] >> 8 * (i % 4));
    XXH3_128bits_update(&state, little, sizeof(little));
    XXH3_128bits_update(&state, bytes.data(), bytes.size());
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(&state);
  return {hash.low64, hash.high64};
}

// ---- What is added around a text -----------------------------------------------------------------------------------

void Vocabulary::read_post_processor(const nlohmann::json &rule, int depth) {
  if (rule.is_null()) return;
  const std::string type = text_of(rule, "type");
  if (type == "Sequence" && depth < 8 && member_of(rule, "processors").is_array()) {
    for (const nlohmann::json &step : member_of(rule, "processors")) read_post_processor(step, depth + 1);
  } else if (type == "TemplateProcessing") {
    read_template(rule);
  } else if (type != "ByteLevel") {  // which only moves offsets
    post_reason_ = fmt::format("the post-processor '{}'", shown(type));
  }
}

void Vocabulary::read_template(const nlohmann::json &rule) {
  std::vector<int32_t> before, after;
  bool seen = false;
  for (const nlohmann::json &piece : member_of(rule, "single")) {
    if (piece.contains("Sequence")) {
      if (seen) post_reason_ = "a template that holds the text twice";
      seen = true;
      continue;
    }
    const std::string name = text_of(member_of(piece, "SpecialToken"), "id");
    for (const nlohmann::json &id : member_of(member_of(member_of(rule, "special_tokens"), name.c_str()), "ids")) {
      const bool known = id.is_number_unsigned() && id.get<uint64_t>() < size() && !is_absent(id.get<size_t>());
      if (!known) post_reason_ = fmt::format("a template whose token '{}' has an unknown id", shown(name));
      else (seen ? after : before).push_back(id.get<int32_t>());
    }
  }
  if (!seen) post_reason_ = "a template without the text";
  before_.insert(before_.begin(), before.begin(), before.end());
  after_.insert(after_.end(), after.begin(), after.end());
}

// ---- Both directions -----------------------------------------------------------------------------------------------

std::vector<Piece> Vocabulary::split_added(std::string_view text, bool plain_special) const {
  std::vector<Piece> pieces;
  for (const AddedTokens::Part &raw : raw_added_.split(text, plain_special)) {
    if (raw.id >= 0) {
      pieces.push_back({"", false, raw.id});
      continue;
    }
    const std::string normalized = normalizer_.apply(std::string(text.substr(raw.begin, raw.end - raw.begin)));
    for (const AddedTokens::Part &part : normalized_added_.split(normalized, plain_special)) {
      pieces.push_back({normalized.substr(part.begin, part.end - part.begin), raw.begin == 0 && part.begin == 0, part.id});
    }
  }
  return pieces;
}

std::vector<int32_t> Vocabulary::encode(std::string_view text, uint32_t flags) const {
  for (const std::string *reason : {&normalizer_.reason(), &pre_tokenizer_.reason()}) {
    if (!reason->empty()) fail(CHORUS_UNIMPLEMENTED, "encoding with {} is not implemented", *reason);
  }
  if (const auto bad = invalid_utf8(text)) fail(CHORUS_INVALID_ARGUMENT, "text is not UTF-8 from byte {} on", *bad);
  const bool add_special = (flags & CHORUS_ENCODE_ADD_SPECIAL) != 0;
  if (add_special && !post_reason_.empty()) fail(CHORUS_UNIMPLEMENTED, "adding special tokens with {} is not implemented", post_reason_);
  std::vector<int32_t> ids;
  if (add_special) ids = before_;
  for (const Piece &piece : pre_tokenizer_.apply(split_added(text, (flags & CHORUS_ENCODE_PLAIN_SPECIAL) != 0))) {
    if (piece.id >= 0) ids.push_back(piece.id);
    else model_.encode(vocabulary_, piece.text, &ids);
  }
  if (add_special) ids.insert(ids.end(), after_.begin(), after_.end());
  return ids;
}

std::string Vocabulary::decode(const int32_t *ids, size_t count, uint32_t flags) const {
  std::vector<Decoder::Text> tokens;
  tokens.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const size_t id = static_cast<size_t>(ids[i]);
    if (ids[i] < 0 || id >= size() || is_absent(id)) {
      fail(CHORUS_OUT_OF_RANGE, "ids[{}] is {}; no token has it, ids go from 0 to {}", i, ids[i], static_cast<int64_t>(size()) - 1);
    }
    if ((flags & CHORUS_DECODE_SKIP_SPECIAL) != 0 && is_special(id)) continue;
    tokens.push_back({std::string(texts_.at(id)), (flags_[id] & CHORUS_TOKEN_ADDED) != 0});
  }
  return decoder_.decode(std::move(tokens));
}

}  // namespace chorus::vocabulary
