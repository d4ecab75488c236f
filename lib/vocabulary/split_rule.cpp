// SPDX-License-Identifier: Apache-2.0
// One matcher with switches serves the family that grew out of GPT-2's pattern. Its alternatives, tried in this order:
//   contractions | words | numbers | punctuation | white space to its last line break | white space but its last character
//   before a word | white space
#include "vocabulary/split_rule.h"

#include <algorithm>
#include <limits>

#include "runtime/utf8.h"
#include "vocabulary/unicode.h"

namespace chorus::vocabulary {
namespace {

enum class Contractions { kNone, kExact, kAnyCase, kAfterWord };
enum class Words { kAfterSpace, kAfterAnything, kCased };

struct Switches {
  Contractions contractions;
  Words words;
  size_t digits;               // most of them in one number; 0: any, and a space may stand before
  const char *after_symbols;   // characters that may follow punctuation
  bool line_breaks;            // \s*[\r\n]+
  bool marks_in_words = false; // [\p{L}\p{M}]+
};

struct Character {
  char32_t point;
  size_t end;
};

Character read(std::string_view text, size_t at) {
  if (at >= text.size()) return {0, at};
  size_t end = at;
  const char32_t point = next_code_point(text, &end);
  return {point, end};
}

bool is_break(char32_t c) { return c == '\r' || c == '\n'; }

// The end of the longest run from `at` on whose characters satisfy `fits`, at most `most` of them.
template <typename Fits>
size_t run_end(std::string_view text, size_t at, Fits fits, size_t most = std::numeric_limits<size_t>::max()) {
  for (size_t count = 0; at < text.size() && count < most; ++count) {
    const Character c = read(text, at);
    if (!fits(c.point)) break;
    at = c.end;
  }
  return at;
}

bool letter(char32_t c) { return is_letter(class_of(c)); }
bool letter_or_mark(char32_t c) { return is_letter(class_of(c)) || is_mark(class_of(c)); }
bool number(char32_t c) { return is_number(class_of(c)); }
bool symbol(char32_t c) { return !is_space(c) && !letter(c) && !number(c); }
bool symbol_no_mark(char32_t c) { return symbol(c) && !is_mark(class_of(c)); }

// 's 't 're 've 'm 'll 'd. Any case: also the long s, which folds to s.
size_t match_contraction(std::string_view text, size_t at, bool any_case) {
  if (at >= text.size() || text[at] != '\'') return at;
  const auto folded = [&](Character c) -> char32_t {
    if (any_case && c.point >= 'A' && c.point <= 'Z') return c.point + 32;
    return any_case && c.point == 0x17f ? U's' : c.point;
  };
  const Character first = read(text, at + 1);
  const Character second = read(text, first.end);
  const char32_t a = folded(first), b = first.end > at + 1 && second.end > first.end ? folded(second) : 0;
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return first.end;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return second.end;
  return at;
}

// [^\r\n\p{L}\p{N}]?
size_t skip_prefix(std::string_view text, size_t at) {
  const Character c = read(text, at);
  return c.end > at && !is_break(c.point) && !letter(c.point) && !number(c.point) ? c.end : at;
}

bool upper_part(char32_t c) {  // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
  const CharClass k = class_of(c);
  return k != CharClass::kLower && (is_letter(k) || is_mark(k));
}
bool lower_part(char32_t c) {  // [\p{Ll}\p{Lm}\p{Lo}\p{M}]
  const CharClass k = class_of(c);
  return k != CharClass::kUpper && k != CharClass::kTitle && (is_letter(k) || is_mark(k));
}

// upper* lower+: where the greedy run of upper parts leaves nothing for lower+, it gives back up to its last member that is
// both.
size_t match_upper_lower(std::string_view text, size_t at) {
  size_t end = at, last_both = at;
  while (end < text.size()) {
    const Character c = read(text, end);
    if (!upper_part(c.point)) break;
    end = c.end;
    if (lower_part(c.point)) last_both = end;
  }
  const size_t lower_end = run_end(text, end, lower_part);
  return lower_end > end ? lower_end : last_both;
}

// upper+ lower*
size_t match_upper(std::string_view text, size_t at) {
  const size_t end = run_end(text, at, upper_part);
  return end > at ? run_end(text, end, lower_part) : at;
}

// With the optional character before it, else without.
template <typename Match>
size_t after_prefix(std::string_view text, size_t at, Match match) {
  const size_t begin = skip_prefix(text, at);
  if (const size_t end = match(text, begin); end > begin) return end;
  if (begin == at) return at;
  return match(text, at);
}

size_t match_cased_word(std::string_view text, size_t at, bool contractions) {
  size_t end = after_prefix(text, at, match_upper_lower);
  if (end == at) end = after_prefix(text, at, match_upper);
  return end > at && contractions ? match_contraction(text, end, true) : end;
}

// " ?" then at least one that fits.
template <typename Fits>
size_t match_after_space(std::string_view text, size_t at, Fits fits) {
  const size_t begin = at < text.size() && text[at] == ' ' ? at + 1 : at;
  const size_t end = run_end(text, begin, fits);
  return end > begin ? end : at;
}

size_t match_word(const Switches &s, std::string_view text, size_t at) {
  if (s.words == Words::kCased) return match_cased_word(text, at, s.contractions == Contractions::kAfterWord);
  if (s.words == Words::kAfterSpace) return match_after_space(text, at, letter);
  const auto fits = s.marks_in_words ? letter_or_mark : letter;
  return after_prefix(text, at, [&](std::string_view t, size_t begin) { return run_end(t, begin, fits); });
}

size_t match_space(const Switches &s, std::string_view text, size_t at) {
  size_t end = at, last = at, last_break = at;  // the run, the begin of its last character, the end of its last line break
  size_t count = 0;
  for (; end < text.size(); ++count) {
    const Character c = read(text, end);
    if (!is_space(c.point)) break;
    last = end;
    end = c.end;
    if (is_break(c.point)) last_break = end;
  }
  if (s.line_breaks && last_break > at) return last_break;
  return end == text.size() || count < 2 ? end : last;
}

size_t match(const Switches &s, std::string_view text, size_t at) {
  if (s.contractions == Contractions::kExact || s.contractions == Contractions::kAnyCase) {
    const size_t end = match_contraction(text, at, s.contractions == Contractions::kAnyCase);
    if (end > at) return end;
  }
  if (const size_t end = match_word(s, text, at); end > at) return end;
  const size_t number_end = s.digits == 0 ? match_after_space(text, at, number) : run_end(text, at, number, s.digits);
  if (number_end > at) return number_end;
  if (const size_t end = match_after_space(text, at, s.marks_in_words ? symbol_no_mark : symbol); end > at) {
    const std::string_view tail = s.after_symbols;
    return run_end(text, end, [&](char32_t c) { return c < 128 && tail.find(static_cast<char>(c)) != std::string_view::npos; });
  }
  return match_space(s, text, at);
}

template <const Switches &switches>
size_t match_with(std::string_view text, size_t at) {
  return match(switches, text, at);
}

constexpr Switches kGpt2 = {Contractions::kExact, Words::kAfterSpace, 0, "", false};
constexpr Switches kCl100k = {Contractions::kAnyCase, Words::kAfterAnything, 3, "\r\n", true};
constexpr Switches kQwen2 = {Contractions::kAnyCase, Words::kAfterAnything, 1, "\r\n", true};
constexpr Switches kQwen35 = {Contractions::kAnyCase, Words::kAfterAnything, 1, "\r\n", true, true};
constexpr Switches kO200k = {Contractions::kAfterWord, Words::kCased, 3, "\r\n/", true};
constexpr Switches kTekken = {Contractions::kNone, Words::kCased, 1, "\r\n/", true};

size_t match_numbers3(std::string_view text, size_t at) { return run_end(text, at, number, 3); }
size_t match_number(std::string_view text, size_t at) { return run_end(text, at, number, 1); }
size_t match_digit(std::string_view text, size_t at) {
  return run_end(text, at, [](char32_t c) { return class_of(c) == CharClass::kDecimal; }, 1);
}
size_t match_ascii_digit(std::string_view text, size_t at) {
  return run_end(text, at, [](char32_t c) { return c >= '0' && c <= '9'; }, 1);
}

struct Known {
  const char *regex;
  MatchAt match;
};

#define CHORUS_SPACE_TAIL R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"
#define CHORUS_CASED_WORD(suffix)                                                                                        \
  R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)" suffix                               \
  R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)" suffix
#define CHORUS_ANY_CASE "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define CHORUS_SYMBOLS R"(| ?[^\s\p{L}\p{N}]+[\r\n]*)"

constexpr Known kKnown[] = {
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", match_with<kGpt2>},
    {R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", match_with<kGpt2>},
    {CHORUS_ANY_CASE R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})" CHORUS_SYMBOLS CHORUS_SPACE_TAIL, match_with<kCl100k>},
    {R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)",
     match_with<kCl100k>},
    {CHORUS_ANY_CASE R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})" CHORUS_SYMBOLS CHORUS_SPACE_TAIL, match_with<kQwen2>},
    {CHORUS_ANY_CASE R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" CHORUS_SPACE_TAIL,
     match_with<kQwen35>},
    {CHORUS_CASED_WORD(CHORUS_ANY_CASE "?") R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" CHORUS_SPACE_TAIL, match_with<kO200k>},
    {CHORUS_CASED_WORD("") R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" CHORUS_SPACE_TAIL, match_with<kTekken>},
    {R"(\p{N}{1,3})", match_numbers3},
    {R"(\p{N})", match_number},
    {R"(\d)", match_digit},
    {R"([0-9])", match_ascii_digit},
};

#undef CHORUS_SPACE_TAIL
#undef CHORUS_CASED_WORD
#undef CHORUS_ANY_CASE
#undef CHORUS_SYMBOLS

// Joins each range to the one before when `joins(range, the one before was a match)`, walking from `first` on.
template <typename Joins>
std::vector<Range> fold(const std::vector<Range> &ranges, Joins joins) {
  std::vector<Range> out;
  bool previous = false;
  for (const Range &range : ranges) {
    if (joins(range.is_match, previous) && !out.empty()) {
      out.back().begin = std::min(out.back().begin, range.begin);
      out.back().end = std::max(out.back().end, range.end);
    } else {
      out.push_back(range);
    }
    previous = range.is_match;
  }
  return out;
}

bool joins_neighbour(bool is_match, bool previous) { return is_match && !previous; }

}  // namespace

MatchAt gpt2_pattern() { return match_with<kGpt2>; }

MatchAt known_pattern(std::string_view regex) {
  const auto found = std::ranges::find(kKnown, regex, [](const Known &known) { return std::string_view(known.regex); });
  return found == std::end(kKnown) ? nullptr : found->match;
}

std::vector<Range> find_matches(std::string_view text, MatchAt pattern) {
  std::vector<Range> ranges;
  size_t unmatched = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = pattern(text, at);
    if (end == at) {
      at = read(text, at).end;
      continue;
    }
    if (unmatched < at) ranges.push_back({unmatched, at, false});
    ranges.push_back({at, end, true});
    unmatched = at = end;
  }
  if (unmatched < text.size()) ranges.push_back({unmatched, text.size(), false});
  return ranges;
}

std::vector<Range> find_literal(std::string_view text, std::string_view literal) {
  std::vector<Range> ranges;
  size_t unmatched = 0;
  for (size_t at = literal.empty() ? std::string_view::npos : text.find(literal); at != std::string_view::npos;
       at = text.find(literal, unmatched)) {
    if (unmatched < at) ranges.push_back({unmatched, at, false});
    unmatched = at + literal.size();
    ranges.push_back({at, unmatched, true});
  }
  if (unmatched < text.size()) ranges.push_back({unmatched, text.size(), false});
  return ranges;
}

std::vector<Range> apply(Behavior behavior, std::vector<Range> ranges) {
  switch (behavior) {
    case Behavior::kIsolated: return ranges;
    case Behavior::kRemoved:
      std::erase_if(ranges, [](const Range &range) { return range.is_match; });
      return ranges;
    case Behavior::kContiguous: return fold(ranges, [](bool is_match, bool previous) { return is_match == previous; });
    case Behavior::kMergedWithPrevious: return fold(ranges, joins_neighbour);
    default: {
      std::ranges::reverse(ranges);
      std::vector<Range> out = fold(ranges, joins_neighbour);
      std::ranges::reverse(out);
      return out;
    }
  }
}

}  // namespace chorus::vocabulary
