// SPDX-License-Identifier: Apache-2.0
// ByteLevel, Split, Metaspace and Digits, alone or in a Sequence.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "runtime/utf8.h"
#include "vocabulary/byte_alphabet.h"
#include "vocabulary/rule_field.h"
#include "vocabulary/text_rules.h"
#include "vocabulary/unicode.h"

namespace chorus::vocabulary {
namespace {

std::optional<Behavior> behavior_of(const std::string &name) {
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Contiguous") return Behavior::kContiguous;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  return std::nullopt;
}

void replace_spaces(const std::string &with, std::string *text) {
  std::string out;
  for (const char c : *text) {
    if (c == ' ') out += with;
    else out += c;
  }
  *text = std::move(out);
}

}  // namespace

PreTokenizer::PreTokenizer(const nlohmann::json &rule) { add(rule, 0); }

void PreTokenizer::add(const nlohmann::json &rule, int depth) {
  if (rule.is_null()) return;
  const std::string type = text_of(rule, "type");
  if (type == "Sequence" && depth < 8 && member_of(rule, "pretokenizers").is_array()) {
    for (const nlohmann::json &step : member_of(rule, "pretokenizers")) add(step, depth + 1);
  } else if (type == "ByteLevel") {
    add_byte_level(rule);
  } else if (type == "Split") {
    add_split(rule);
  } else if (type == "Metaspace") {
    add_metaspace(rule);
  } else if (type == "Digits") {
    Step step{Kind::kSplit};
    step.pattern = known_pattern(R"(\p{N})");
    step.behavior = flag_of(rule, "individual_digits", false) ? Behavior::kIsolated : Behavior::kContiguous;
    steps_.push_back(step);
  } else if (reason_.empty()) {
    reason_ = fmt::format("the pre-tokenizer '{}'", shown(type));
  }
}

void PreTokenizer::add_byte_level(const nlohmann::json &rule) {
  Step step{Kind::kByteLevel};
  step.prefix = flag_of(rule, "add_prefix_space", true) ? Prefix::kAlways : Prefix::kNever;
  step.pattern = flag_of(rule, "use_regex", true) ? gpt2_pattern() : nullptr;
  steps_.push_back(step);
}

void PreTokenizer::add_split(const nlohmann::json &rule) {
  Step step{Kind::kSplit};
  const nlohmann::json &pattern = member_of(rule, "pattern");
  const auto behavior = behavior_of(text_of(rule, "behavior"));
  if (pattern.contains("Regex")) {
    const std::string regex = text_of(pattern, "Regex");
    step.pattern = known_pattern(regex);
    if (step.pattern == nullptr && reason_.empty()) reason_ = fmt::format("the split pattern '{}'", shown(regex));
  } else {
    step.literal = text_of(pattern, "String");
  }
  if (!behavior && reason_.empty()) reason_ = fmt::format("the split behavior '{}'", shown(text_of(rule, "behavior")));
  step.behavior = behavior.value_or(Behavior::kIsolated);
  step.invert = flag_of(rule, "invert", false);
  steps_.push_back(step);
}

void PreTokenizer::add_metaspace(const nlohmann::json &rule) {
  Step step{Kind::kMetaspace};
  step.literal = text_of(rule, "replacement");
  step.behavior = Behavior::kMergedWithNext;
  step.split = flag_of(rule, "split", true);
  const std::string scheme = text_of(rule, "prepend_scheme");
  step.prefix = scheme == "never" || !flag_of(rule, "add_prefix_space", true) ? Prefix::kNever
                : scheme == "first"                                           ? Prefix::kFirst
                                                                              : Prefix::kAlways;
  steps_.push_back(step);
}

bool PreTokenizer::is_byte_level() const {
  return std::ranges::any_of(steps_, [](const Step &step) { return step.kind == Kind::kByteLevel; });
}

bool PreTokenizer::marks_spaces() const {
  return std::ranges::any_of(steps_, [](const Step &step) { return step.kind == Kind::kMetaspace && step.literal == "\u2581"; });
}

void PreTokenizer::run(const Step &step, Piece piece, std::vector<Piece> *out) {
  if (step.kind == Kind::kMetaspace) replace_spaces(step.literal, &piece.text);
  const std::string &prefix = step.kind == Kind::kMetaspace ? step.literal : " ";
  const bool wanted = step.prefix == Prefix::kAlways || (step.prefix == Prefix::kFirst && piece.at_start);
  if (wanted && !piece.text.starts_with(prefix)) piece.text = prefix + piece.text;

  std::vector<Range> ranges = {{0, piece.text.size(), false}};
  if (step.pattern != nullptr) ranges = find_matches(piece.text, step.pattern);
  else if (step.kind != Kind::kByteLevel && step.split) ranges = find_literal(piece.text, step.literal);
  if (step.invert) {
    for (Range &range : ranges) range.is_match = !range.is_match;
  }
  for (const Range &range : vocabulary::apply(step.behavior, std::move(ranges))) {
    std::string part = piece.text.substr(range.begin, range.end - range.begin);
    if (step.kind == Kind::kByteLevel) part = to_byte_alphabet(part);
    if (!part.empty()) out->push_back({std::move(part), piece.at_start && range.begin == 0, -1});
  }
}

std::vector<Piece> PreTokenizer::apply(std::vector<Piece> pieces) const {
  for (const Step &step : steps_) {
    std::vector<Piece> next;
    for (Piece &piece : pieces) {
      if (piece.id >= 0) next.push_back(std::move(piece));
      else run(step, std::move(piece), &next);
    }
    pieces = std::move(next);
  }
  return pieces;
}

}  // namespace chorus::vocabulary
