// SPDX-License-Identifier: Apache-2.0
// UTF-8: checking, and walking over code points.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace chorus {

// Byte at which `text` stops being UTF-8 (overlong forms, surrogates and what lies above U+10FFFF are none); nothing when all
// of it is.
std::optional<size_t> invalid_utf8(std::string_view text);

// The code point at byte `*at` of valid UTF-8; moves `*at` behind it.
inline char32_t next_code_point(std::string_view text, size_t *at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[*at + i]); };
  const unsigned char first = byte(0);
  const int length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  char32_t point = length == 1 ? first : first & (0xff >> (length + 1));
  for (int i = 1; i < length; ++i) point = point << 6 | (byte(static_cast<size_t>(i)) & 0x3f);
  *at += static_cast<size_t>(length);
  return point;
}

// Untrusted text for a message: control characters and what is not UTF-8 as \xNN, cut to some 200 bytes.
std::string shown(std::string_view text);

// `point` is a scalar value.
void append_utf8(char32_t point, std::string *out);

}  // namespace chorus
