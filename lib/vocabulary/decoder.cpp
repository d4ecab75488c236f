// SPDX-License-Identifier: Apache-2.0
// ByteLevel, Replace (of literal texts), ByteFallback, Fuse, Strip and Metaspace, alone or in a Sequence.
#include "vocabulary/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "runtime/error.h"
#include "runtime/utf8.h"
#include "vocabulary/byte_alphabet.h"
#include "vocabulary/rule_field.h"
#include "vocabulary/split_rule.h"

namespace chorus::vocabulary {
namespace {

size_t count_of(const nlohmann::json &rule, const char *name) {
  const nlohmann::json &value = member_of(rule, name);
  return value.is_number_unsigned() ? value.get<size_t>() : 0;
}

void replace_all(const std::string &from, const std::string &to, std::string *text) {
  std::string out;
  for (const Range &range : find_literal(*text, from)) {
    if (range.is_match) out += to;
    else out.append(*text, range.begin, range.end - range.begin);
  }
  *text = std::move(out);
}

// At most `start` times `what` from the front and `stop` times from the back.
void strip(const std::string &what, size_t start, size_t stop, std::string *text) {
  if (what.empty()) return;
  size_t begin = 0, end = text->size();
  for (; start > 0 && std::string_view(*text).substr(begin).starts_with(what); --start) begin += what.size();
  for (; stop > 0 && end - begin >= what.size() && std::string_view(*text).substr(0, end).ends_with(what); --stop) end -= what.size();
  *text = text->substr(begin, end - begin);
}

}  // namespace

int byte_of_token(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  unsigned byte = 0;
  const auto [end, error] = std::from_chars(text.data() + 3, text.data() + 5, byte, 16);
  return error == std::errc() && end == text.data() + 5 ? static_cast<int>(byte) : -1;
}

Decoder::Decoder(const nlohmann::json &rule) {
  joins_with_spaces_ = rule.is_null();
  add(rule, 0);
}

void Decoder::add(const nlohmann::json &rule, int depth) {
  if (rule.is_null()) return;
  const std::string type = text_of(rule, "type");
  if (type == "Sequence" && depth < 8 && member_of(rule, "decoders").is_array()) {
    for (const nlohmann::json &step : member_of(rule, "decoders")) add(step, depth + 1);
  } else if (type == "ByteLevel") {
    steps_.push_back({Kind::kByteLevel, "", ""});
  } else if (type == "Replace" && member_of(rule, "pattern").contains("String")) {
    steps_.push_back({Kind::kReplace, text_of(rule["pattern"], "String"), text_of(rule, "content")});
  } else if (type == "ByteFallback") {
    steps_.push_back({Kind::kByteFallback, "", ""});
  } else if (type == "Fuse") {
    steps_.push_back({Kind::kFuse, "", ""});
  } else if (type == "Strip") {
    steps_.push_back({Kind::kStrip, text_of(rule, "content"), "", count_of(rule, "start"), count_of(rule, "stop")});
  } else if (type == "Metaspace") {
    const bool never = text_of(rule, "prepend_scheme") == "never" || !flag_of(rule, "add_prefix_space", true);
    steps_.push_back({Kind::kMetaspace, text_of(rule, "replacement"), "", 0, 0, !never});
  } else if (reason_.empty()) {
    reason_ = fmt::format("the decoder '{}'", shown(type));
  }
}

void Decoder::run(const Step &step, std::vector<Text> *tokens) {
  if (step.kind == Kind::kFuse) {
    Text fused{"", false};
    for (const Text &token : *tokens) fused.text += token.text;
    *tokens = {std::move(fused)};
    return;
  }
  bool first = true;
  for (Text &token : *tokens) {
    switch (step.kind) {
      case Kind::kByteLevel:
        if (token.is_added) break;
        if (auto bytes = from_byte_alphabet(token.text)) token.text = std::move(*bytes);
        break;
      case Kind::kReplace: replace_all(step.from, step.to, &token.text); break;
      case Kind::kByteFallback:
        if (const int byte = byte_of_token(token.text); byte >= 0) token.text = std::string(1, static_cast<char>(byte));
        break;
      case Kind::kStrip: strip(step.from, step.start, step.stop, &token.text); break;
      case Kind::kMetaspace: replace_all(step.from, first && step.strips_first ? "" : " ", &token.text); break;
      case Kind::kFuse: break;
    }
    first = false;
  }
}

std::string Decoder::decode(std::vector<Text> tokens) const {
  if (!reason_.empty()) fail(CHORUS_UNIMPLEMENTED, "decoding with {} is not implemented", reason_);
  for (const Step &step : steps_) run(step, &tokens);
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (joins_with_spaces_ && i > 0) out += ' ';
    out += tokens[i].text;
  }
  return out;
}

bool Decoder::is_byte_level() const {
  return std::ranges::any_of(steps_, [](const Step &step) { return step.kind == Kind::kByteLevel; });
}

bool Decoder::marks_spaces() const {
  return std::ranges::any_of(steps_, [](const Step &step) {
    return step.from == "\u2581" && (step.kind == Kind::kMetaspace || (step.kind == Kind::kReplace && step.to == " "));
  });
}

bool Decoder::has_byte_tokens() const {
  return std::ranges::any_of(steps_, [](const Step &step) { return step.kind == Kind::kByteFallback; });
}

}  // namespace chorus::vocabulary
