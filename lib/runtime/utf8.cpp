// SPDX-License-Identifier: Apache-2.0
// The well-formed byte sequences of the Unicode standard, table 3-7.
#include "runtime/utf8.h"

#include <fmt/format.h>

#include <iterator>

namespace chorus {
namespace {

// Bytes of the character that begins at `at`, or 0.
size_t well_formed(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) -> unsigned { return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u; };
  const auto continues = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const unsigned first = byte(0), second = byte(1);
  if (first < 0x80) return 1;
  if (first < 0xc2) return 0;
  if (first < 0xe0) return continues(1) ? 2 : 0;
  if (first < 0xf0) {
    const bool fits = first == 0xe0 ? second >= 0xa0 : first == 0xed ? second < 0xa0 : true;
    return fits && continues(1) && continues(2) ? 3 : 0;
  }
  if (first > 0xf4) return 0;
  const bool fits = first == 0xf0 ? second >= 0x90 : first == 0xf4 ? second < 0x90 : true;
  return fits && continues(1) && continues(2) && continues(3) ? 4 : 0;
}

}  // namespace

std::optional<size_t> invalid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t length = well_formed(text, at);
    if (length == 0) return at;
    at += length;
  }
  return std::nullopt;
}

std::string shown(std::string_view text) {
  constexpr size_t kMost = 200;
  std::string out;
  for (size_t at = 0; at < text.size();) {
    if (out.size() >= kMost) return out + "…";
    const size_t length = well_formed(text, at);
    const auto byte = static_cast<unsigned char>(text[at]);
    if (length == 0 || byte < 0x20 || byte == 0x7f) {
      fmt::format_to(std::back_inserter(out), "\\x{:02x}", byte);
      ++at;
    } else {
      out += text.substr(at, length);
      at += length;
    }
  }
  return out;
}

void append_utf8(char32_t point, std::string *out) {
  const auto add = [&](char32_t byte) { *out += static_cast<char>(byte); };
  if (point < 0x80) return add(point);
  if (point < 0x800) {
    add(0xc0 | point >> 6);
  } else {
    if (point < 0x10000) {
      add(0xe0 | point >> 12);
    } else {
      add(0xf0 | point >> 18);
      add(0x80 | (point >> 12 & 0x3f));
    }
    add(0x80 | (point >> 6 & 0x3f));
  }
  add(0x80 | (point & 0x3f));
}

}  // namespace chorus
