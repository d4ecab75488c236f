// SPDX-License-Identifier: Apache-2.0
// Plain scalars by PyYAML's implicit resolver (YAML 1.1), and Python's float().
#include <charconv>
#include <cmath>
#include <limits>

#include "merge/recipe/yaml.h"

namespace chorus::merge {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_any_of(std::string_view text, std::initializer_list<std::string_view> words) {
  for (const std::string_view word : words) {
    if (text == word) return true;
  }
  return false;
}

std::string without_underscores(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c != '_') out.push_back(c);
  }
  return out;
}

// All of `text` in base `base`, underscores left out; false when another character is in it.
bool digits(std::string_view text, int base, double *out) {
  const std::string plain = without_underscores(text);
  if (plain.empty()) return false;
  double value = 0;
  for (const char c : plain) {
    const int digit = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
    if (digit >= base) return false;
    value = value * base + digit;
  }
  *out = value;
  return true;
}

bool decimal(const std::string &text, double *out) {
  const char *end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *out);
  if (stop != end || text.empty()) return false;
  // Too large is infinity and too small is 0, as in Python.
  if (error == std::errc::result_out_of_range) *out = text.find("e-") != std::string::npos || text.find("E-") != std::string::npos ? 0 : HUGE_VAL;
  return error == std::errc() || error == std::errc::result_out_of_range;
}

// [1-9][0-9_]*(:[0-5]?[0-9])+ : base 60, with a fraction when `fraction`.
bool sexagesimal(std::string_view text, bool fraction, double *out) {
  if (text.empty() || !is_digit(text[0]) || (!fraction && text[0] == '0') || text.find(':') == std::string_view::npos) return false;
  double value = 0;
  bool first = true;
  while (true) {
    const size_t colon = text.find(':');
    std::string part(text.substr(0, colon));
    const bool last = colon == std::string_view::npos;
    if (!first && (part.empty() || part.size() > (last && fraction ? 64 : 2))) return false;
    double number = 0;
    if (!decimal(without_underscores(part), &number) || (!first && number >= 60)) return false;
    if (!(last && fraction) && part.find('.') != std::string::npos) return false;
    if (last && fraction && part.find('.') == std::string::npos) return false;
    value = value * 60 + number;
    first = false;
    if (last) break;
    text.remove_prefix(colon + 1);
  }
  *out = value;
  return true;
}

bool integer(std::string_view text, double *out) {
  if (text == "0") {
    *out = 0;
    return true;
  }
  if (text.starts_with("0b")) return digits(text.substr(2), 2, out);
  if (text.starts_with("0x")) return digits(text.substr(2), 16, out);
  if (text.starts_with("0")) return digits(text.substr(1), 8, out);
  if (!text.empty() && is_digit(text[0]) && text.find(':') == std::string_view::npos) return digits(text, 10, out);
  return sexagesimal(text, false, out);
}

// PyYAML wants a dot, and a sign in the exponent: 1e-3 is text there.
bool floating(std::string_view text, double *out) {
  if (is_any_of(text, {".inf", ".Inf", ".INF"})) {
    *out = HUGE_VAL;
    return true;
  }
  if (text.find(':') != std::string_view::npos) return sexagesimal(text, true, out);
  const size_t dot = text.find('.');
  if (dot == std::string_view::npos || (dot > 0 && !is_digit(text[0])) || (dot == 0 && (text.size() < 2 || !is_digit(text[1])))) return false;
  const size_t exponent = text.find_first_of("eE");
  if (exponent != std::string_view::npos &&
      (exponent < dot || exponent + 2 >= text.size() || (text[exponent + 1] != '-' && text[exponent + 1] != '+'))) {
    return false;
  }
  std::string plain = without_underscores(text);
  if (plain.starts_with('.')) plain.insert(0, "0");
  // from_chars knows no '+' in front, and wants none in the exponent either way.
  return decimal(plain, out);
}

}  // namespace

bool python_float(const std::string &text, double *out) {
  size_t begin = text.find_first_not_of(" \t\r\n"), end = text.find_last_not_of(" \t\r\n");
  if (begin == std::string::npos) return false;
  std::string plain = text.substr(begin, end - begin + 1);
  const double sign = plain[0] == '-' ? -1 : 1;
  if (plain[0] == '+' || plain[0] == '-') plain.erase(0, 1);
  std::string lower;
  for (const char c : plain) lower.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c);
  if (is_any_of(lower, {"inf", "infinity"})) {
    *out = sign * HUGE_VAL;
    return true;
  }
  if (lower == "nan") {
    *out = std::numeric_limits<double>::quiet_NaN();
    return true;
  }
  plain = without_underscores(plain);
  if (plain.empty() || !(is_digit(plain[0]) || plain[0] == '.')) return false;
  if (plain[0] == '.') plain.insert(0, "0");
  if (!decimal(plain, out)) return false;
  *out *= sign;
  return true;
}

void resolve_plain(Node *scalar) {
  const std::string_view text = scalar->text;
  scalar->kind = Node::Kind::kText;
  if (text.empty() || is_any_of(text, {"~", "null", "Null", "NULL"})) {
    scalar->kind = Node::Kind::kNull;
    return;
  }
  const bool yes = is_any_of(text, {"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"});
  if (yes || is_any_of(text, {"no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"})) {
    scalar->kind = Node::Kind::kBoolean;
    scalar->number = yes ? 1 : 0;
    return;
  }
  if (is_any_of(text, {".nan", ".NaN", ".NAN"})) {
    scalar->kind = Node::Kind::kNumber;
    scalar->number = std::numeric_limits<double>::quiet_NaN();
    return;
  }
  const bool has_sign = text[0] == '-' || text[0] == '+';
  const std::string_view unsigned_text = has_sign ? text.substr(1) : text;
  double number = 0;
  if (integer(unsigned_text, &number)) {
    scalar->kind = Node::Kind::kInteger;
  } else if (floating(unsigned_text, &number)) {
    scalar->kind = Node::Kind::kNumber;
  } else {
    return;
  }
  scalar->number = text[0] == '-' ? -number : number;
}

}  // namespace chorus::merge
