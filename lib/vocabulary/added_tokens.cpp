// SPDX-License-Identifier: Apache-2.0
// Patterns in sorted order: those that begin with what was read are a range of them, which each byte narrows.
#include "vocabulary/added_tokens.h"

#include <algorithm>

#include "runtime/utf8.h"
#include "vocabulary/unicode.h"

namespace chorus::vocabulary {
namespace {

char32_t last_code_point(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) --at;
  return next_code_point(text, &at);
}

bool ends_with_word(std::string_view text) { return !text.empty() && is_word(last_code_point(text)); }

bool starts_with_word(std::string_view text) {
  size_t at = 0;
  return !text.empty() && is_word(next_code_point(text, &at));
}

size_t spaces_end(std::string_view text, size_t at) {
  for (size_t next = at; next < text.size(); at = next) {
    if (!is_space(next_code_point(text, &next))) break;
  }
  return at;
}

// Where the white space that ends at `at` begins, not before `first`.
size_t spaces_begin(std::string_view text, size_t at, size_t first) {
  while (at > first && is_space(last_code_point(text.substr(0, at)))) {
    --at;
    while (at > first && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) --at;
  }
  return at;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, std::vector<std::string> patterns) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!patterns[i].empty()) entries_.push_back({std::move(patterns[i]), std::move(tokens[i])});
  }
  std::ranges::stable_sort(entries_, {}, &Entry::pattern);
  for (const Entry &entry : entries_) begins_[static_cast<unsigned char>(entry.pattern[0])] = true;
}

const AddedTokens::Entry *AddedTokens::longest_at(std::string_view text, size_t at) const {
  if (!begins_[static_cast<unsigned char>(text[at])]) return nullptr;
  auto first = entries_.begin(), last = entries_.end();
  const Entry *found = nullptr;
  for (size_t depth = 0; at + depth < text.size() && first != last; ++depth) {
    const auto byte_at = [depth](const Entry &entry) {
      return depth < entry.pattern.size() ? static_cast<int>(static_cast<unsigned char>(entry.pattern[depth])) : -1;
    };
    const int wanted = static_cast<unsigned char>(text[at + depth]);
    first = std::partition_point(first, last, [&](const Entry &e) { return byte_at(e) < wanted; });
    last = std::partition_point(first, last, [&](const Entry &e) { return byte_at(e) <= wanted; });
    if (first != last && first->pattern.size() == depth + 1) found = &*first;
  }
  return found;
}

std::vector<AddedTokens::Part> AddedTokens::split(std::string_view text, bool plain_special) const {
  std::vector<Part> parts;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const Entry *entry = longest_at(text, at);
    if (entry == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + entry->pattern.size();
    at = end;
    const AddedToken &token = entry->token;
    if (plain_special && token.special) continue;
    if (token.single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) continue;
    // A token within the white space that the one before took is a token all the same, and text goes on behind it (as in the
    // library).
    if (token.left_strip && begin >= done) begin = spaces_begin(text, begin, done);
    if (token.right_strip) end = spaces_end(text, end);
    if (done < begin) parts.push_back({done, begin, -1});
    parts.push_back({begin, end, static_cast<int32_t>(token.id)});
    done = end;
  }
  if (done < text.size()) parts.push_back({done, text.size(), -1});
  return parts;
}

}  // namespace chorus::vocabulary
