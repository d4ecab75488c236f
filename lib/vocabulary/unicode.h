// SPDX-License-Identifier: Apache-2.0
// Classes of characters by Unicode 16.0, as the patterns of tokenizers name them: \p{L}, \p{N}, \s, \w, …
#pragma once
#include <cstdint>

namespace chorus::vocabulary {

// General categories, those of one use put together. The numbers are those of unicode_classes.py.
enum class CharClass : uint8_t {
  kOther, kUpper, kLower, kTitle, kModifier, kOtherLetter, kMark, kDecimal, kLetterNumber, kOtherNumber, kConnector,
  kPunctuation, kSymbol
};

// O(1) for ASCII, else a binary search in some 3000 runs.
CharClass class_of(char32_t point);

inline bool is_letter(CharClass c) { return c >= CharClass::kUpper && c <= CharClass::kOtherLetter; }  // \p{L}
inline bool is_number(CharClass c) { return c >= CharClass::kDecimal && c <= CharClass::kOtherNumber; }  // \p{N}
inline bool is_mark(CharClass c) { return c == CharClass::kMark; }                                     // \p{M}
bool is_space(char32_t point);  // \s: the property White_Space
bool is_word(char32_t point);   // \w: alphabetic, marks, decimals, connectors, join controls

}  // namespace chorus::vocabulary
