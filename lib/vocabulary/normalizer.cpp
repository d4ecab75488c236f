// SPDX-License-Identifier: Apache-2.0
// Prepend, Replace (of literal texts) and Strip, alone or in a Sequence.
#include <fmt/format.h>

#include <algorithm>

#include "runtime/utf8.h"
#include "vocabulary/rule_field.h"
#include "vocabulary/text_rules.h"
#include "vocabulary/unicode.h"

namespace chorus::vocabulary {
namespace {

std::string replaced(const std::string &text, const std::string &from, const std::string &to) {
  std::string out;
  out.reserve(text.size());
  for (const Range &range : find_literal(text, from)) {
    if (range.is_match) out += to;
    else out.append(text, range.begin, range.end - range.begin);
  }
  return out;
}

std::string stripped(const std::string &text, bool left, bool right) {
  size_t begin = text.size(), end = 0;  // of what is no white space
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    if (is_space(next_code_point(text, &at))) continue;
    begin = std::min(begin, start);
    end = at;
  }
  if (!left) begin = 0;
  if (!right) end = text.size();
  return begin < end ? text.substr(begin, end - begin) : "";
}

}  // namespace

Normalizer::Normalizer(const nlohmann::json &rule) { add(rule, 0); }

void Normalizer::add(const nlohmann::json &rule, int depth) {
  if (rule.is_null()) return;
  const std::string type = text_of(rule, "type");
  if (type == "Sequence" && depth < 8 && member_of(rule, "normalizers").is_array()) {
    for (const nlohmann::json &step : member_of(rule, "normalizers")) add(step, depth + 1);
  } else if (type == "Prepend") {
    steps_.push_back({Kind::kPrepend, "", text_of(rule, "prepend")});
  } else if (type == "Replace" && member_of(rule, "pattern").contains("String")) {
    steps_.push_back({Kind::kReplace, text_of(rule["pattern"], "String"), text_of(rule, "content")});
  } else if (type == "Strip") {
    steps_.push_back({Kind::kStrip, "", "", flag_of(rule, "strip_left", true), flag_of(rule, "strip_right", true)});
  } else if (reason_.empty()) {
    reason_ = fmt::format("the normalizer '{}'{}", shown(type), type == "Replace" ? " by a regular expression" : "");
  }
}

std::string Normalizer::apply(std::string text) const {
  for (const Step &step : steps_) {
    switch (step.kind) {
      case Kind::kPrepend:
        if (!text.empty()) text = step.to + text;
        break;
      case Kind::kReplace: text = replaced(text, step.from, step.to); break;
      case Kind::kStrip: text = stripped(text, step.left, step.right); break;
    }
  }
  return text;
}

bool Normalizer::marks_spaces() const {
  return std::ranges::any_of(steps_, [](const Step &step) {
    return step.kind == Kind::kReplace && step.from == " " && step.to == "\u2581";
  });
}

}  // namespace chorus::vocabulary
