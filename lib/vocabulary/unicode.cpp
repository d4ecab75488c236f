// SPDX-License-Identifier: Apache-2.0
// The table of classes, and the two properties that are no category.
#include "vocabulary/unicode.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace chorus::vocabulary {
namespace {

constexpr uint32_t kRuns[] = {
#include "vocabulary/unicode_classes.inc"
};

CharClass search(char32_t point) {
  const uint32_t wanted = static_cast<uint32_t>(point) << 4 | 15;
  return static_cast<CharClass>(*(std::ranges::upper_bound(kRuns, wanted) - 1) & 15);
}

std::array<CharClass, 128> ascii_classes() {
  std::array<CharClass, 128> out;
  for (char32_t c = 0; c < 128; ++c) out[c] = search(c);
  return out;
}

bool is_between(char32_t c, char32_t first, char32_t last) { return c >= first && c <= last; }

}  // namespace

CharClass class_of(char32_t point) {
  static const std::array<CharClass, 128> kAscii = ascii_classes();
  return point < 128 ? kAscii[point] : search(point);
}

bool is_space(char32_t c) {
  if (c < 0x80) return c == ' ' || is_between(c, 9, 13);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || is_between(c, 0x2000, 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
         c == 0x205f || c == 0x3000;
}

bool is_word(char32_t c) {
  const CharClass found = class_of(c);
  if (is_letter(found) || is_mark(found) || found == CharClass::kDecimal || found == CharClass::kLetterNumber ||
      found == CharClass::kConnector) {
    return true;
  }
  // Join controls, and the symbols that are Alphabetic: circled, squared letters.
  return c == 0x200c || c == 0x200d || is_between(c, 0x24b6, 0x24e9) || is_between(c, 0x1f130, 0x1f149) ||
         is_between(c, 0x1f150, 0x1f169) || is_between(c, 0x1f170, 0x1f189);
}

}  // namespace chorus::vocabulary
