// SPDX-License-Identifier: Apache-2.0
// The regular expressions that tokenizers split text with, as matchers written by hand: linear in the text, whatever it holds.
// Known patterns only; an unknown one is refused by name.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace chorus::vocabulary {

struct Range {
  size_t begin, end;  // bytes
  bool is_match;
};

// Finds where the next match of a pattern ends that begins at `at` exactly; `at` when there is none.
using MatchAt = size_t (*)(std::string_view text, size_t at);

// The matcher of a regular expression as tokenizer.json spells it; NULL when it is not known.
MatchAt known_pattern(std::string_view regex);
// GPT-2's pattern, which ByteLevel uses by itself.
MatchAt gpt2_pattern();

// The matches of `pattern` in `text` and what lies between them, in order, covering it.
std::vector<Range> find_matches(std::string_view text, MatchAt pattern);
// The same for a literal text; an empty one matches nothing.
std::vector<Range> find_literal(std::string_view text, std::string_view literal);

// How a matched delimiter is split off.
enum class Behavior { kIsolated, kRemoved, kContiguous, kMergedWithPrevious, kMergedWithNext };

// The pieces that remain of `ranges`, in order; none is empty.
std::vector<Range> apply(Behavior behavior, std::vector<Range> ranges);

}  // namespace chorus::vocabulary
