// SPDX-License-Identifier: Apache-2.0
// The alphabet of byte-level tokenizers: a printable character for each of the 256 bytes, as GPT-2 chose them.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace chorus::vocabulary {

// Each byte of `text` as its character, in UTF-8.
std::string to_byte_alphabet(std::string_view text);

// The bytes that the characters of `text` stand for; nothing when one of them stands for none.
std::optional<std::string> from_byte_alphabet(std::string_view text);

}  // namespace chorus::vocabulary
