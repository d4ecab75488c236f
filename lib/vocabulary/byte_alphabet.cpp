// SPDX-License-Identifier: Apache-2.0
// Printable bytes of Latin-1 stand for themselves, the others for U+0100, U+0101, … in their order.
#include "vocabulary/byte_alphabet.h"

#include <array>

#include "runtime/utf8.h"

namespace chorus::vocabulary {
namespace {

struct Alphabet {
  std::array<std::string, 256> character;
  std::array<int16_t, 0x180> byte;

  Alphabet() {
    byte.fill(-1);
    char32_t next = 0x100;
    for (char32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      const char32_t point = printable ? b : next++;
      append_utf8(point, &character[b]);
      byte[point] = static_cast<int16_t>(b);
    }
  }
};

const Alphabet &alphabet() {
  static const Alphabet kAlphabet;
  return kAlphabet;
}

}  // namespace

std::string to_byte_alphabet(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  for (const char c : text) out += alphabet().character[static_cast<unsigned char>(c)];
  return out;
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const char32_t point = next_code_point(text, &at);
    if (point >= alphabet().byte.size() || alphabet().byte[point] < 0) return std::nullopt;
    out += static_cast<char>(alphabet().byte[point]);
  }
  return out;
}

}  // namespace chorus::vocabulary
