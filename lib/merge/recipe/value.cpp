// SPDX-License-Identifier: Apache-2.0
// Scalars, gradients and filters of a parameter, checked number by number.
#include "merge/recipe/value.h"

#include <algorithm>
#include <cmath>

#include "runtime/nearest.h"
#include "runtime/utf8.h"

namespace chorus::merge {
namespace {

class ValueReader {
 public:
  ValueReader(const Parameter &parameter, Diagnostics *diagnostics) : parameter_(parameter), diagnostics_(diagnostics) {}

  std::optional<Value> read(const Node &node) {
    Value value;
    value.place = node.place;
    value.steps = parameter_.type == ParameterType::kBoolean || parameter_.type == ParameterType::kWord;
    const bool by_name = node.kind == Node::Kind::kList && std::ranges::any_of(node.items, [](const NodePtr &item) {
                           return item->kind == Node::Kind::kMap;
                         });
    if (by_name) {
      for (const NodePtr &item : node.items) add_case(*item, &value);
    } else if (node.kind == Node::Kind::kMap) {
      add_case(node, &value);
    } else {
      value.cases.push_back({"", points(node)});
    }
    return ok_ ? std::optional(value) : std::nullopt;
  }

 private:
  template <typename... Args>
  void error(Place place, fmt::format_string<Args...> format, Args &&...args) {
    diagnostics_->error(place, format, std::forward<Args>(args)...);
    ok_ = false;
  }

  void add_case(const Node &node, Value *value) {
    if (node.kind != Node::Kind::kMap) {  // a bare number among cases holds for all
      value->cases.push_back({"", points(node)});
      return;
    }
    ValueCase one;
    const Node *number = nullptr;
    for (const Entry &entry : node.entries) {
      if (entry.key->text == "filter") {
        if (!entry.value->is_scalar()) error(entry.value->place, "filter is {}; a part of a tensor's name is needed", kind_name(entry.value->kind));
        one.filter = entry.value->kind == Node::Kind::kNull ? "" : entry.value->text;
      } else if (entry.key->text == "value") {
        number = entry.value.get();
      } else {
        const std::vector<std::string> known = {"filter", "value"};
        error(entry.key->place, "unknown key '{}' in {}; filter and value are known{}", shown(entry.key->text), parameter_.name,
              did_you_mean(entry.key->text, known));
      }
    }
    if (number == nullptr) {
      error(node.place, "{} lacks 'value' beside its filter", parameter_.name);
      return;
    }
    one.points = points(*number);
    value->cases.push_back(std::move(one));
  }

  std::vector<double> points(const Node &node) {
    std::vector<double> out;
    if (node.kind == Node::Kind::kList) {
      if (node.items.empty()) error(node.place, "{} is an empty list; a gradient needs numbers", parameter_.name);
      for (const NodePtr &item : node.items) out.push_back(point(*item));
    } else {
      out.push_back(point(node));
    }
    return out;
  }

  double point(const Node &node) {
    if (parameter_.type == ParameterType::kWord) return word(node);
    double number = node.number;
    const bool is_boolean = parameter_.type == ParameterType::kBoolean;
    switch (node.kind) {
      case Node::Kind::kBoolean:
        if (is_boolean) return number;
        break;
      case Node::Kind::kInteger:
      case Node::Kind::kNumber:
        if (!is_boolean || number == 0 || number == 1) return checked(node, number);
        break;
      case Node::Kind::kText:
        if (!is_boolean && python_float(node.text, &number)) return checked(node, number);
        if (is_boolean && is_word(node.text, &number)) return number;
        break;
      default:
        break;
    }
    error(node.place, "{} is {}{}; {} is needed", parameter_.name, kind_name(node.kind),
          node.is_scalar() && node.kind != Node::Kind::kNull ? fmt::format(" ('{}')", shown(node.text)) : "",
          is_boolean                                      ? "true or false"
          : parameter_.type == ParameterType::kInteger ? "a whole number"
                                                       : "a number, a list of numbers, or a list of {filter, value}");
    return 0;
  }

  double word(const Node &node) {
    const std::vector<std::string> words(parameter_.words.begin(), parameter_.words.end());
    const auto found = std::ranges::find(words, node.text);
    if (node.is_scalar() && found != words.end()) return static_cast<double>(found - words.begin());
    error(node.place, "{} is {}; {} is needed{}", parameter_.name, node.is_scalar() ? fmt::format("'{}'", shown(node.text)) : kind_name(node.kind),
          range_of(parameter_), node.is_scalar() ? did_you_mean(node.text, words) : "");
    return 0;
  }

  // Quoted booleans.
  static bool is_word(const std::string &text, double *out) {
    Node node;
    node.text = text;
    resolve_plain(&node);
    *out = node.number;
    return node.kind == Node::Kind::kBoolean;
  }

  double checked(const Node &node, double number) {
    if (!std::isfinite(number)) {
      error(node.place, "{} is {}; a finite number is needed", parameter_.name, shown(node.text));
    } else if (parameter_.type == ParameterType::kInteger && number != std::floor(number)) {
      error(node.place, "{} is {}; a whole number is needed", parameter_.name, shown(node.text));
    } else if (number < parameter_.minimum || number > parameter_.maximum) {
      error(node.place, "{} is {}; {} is allowed", parameter_.name, shown(node.text), range_of(parameter_));
    }
    return number;
  }

  const Parameter &parameter_;
  Diagnostics *diagnostics_;
  bool ok_ = true;
};

bool fits(const ValueCase &one, std::string_view name) {
  return one.filter.empty() || one.filter == "*" || name.find(one.filter) != std::string_view::npos;
}

}  // namespace

std::optional<double> Value::at(double t, std::string_view name) const {
  const auto found = std::ranges::find_if(cases, [&](const ValueCase &one) { return fits(one, name); });
  if (found == cases.end()) return std::nullopt;
  const std::vector<double> &points = found->points;
  const double position = t * static_cast<double>(points.size() - 1);
  const auto below = std::min(static_cast<size_t>(position), points.size() - 1);
  if (steps || below + 1 >= points.size()) return points[below];
  const double part = position - static_cast<double>(below);
  return (1 - part) * points[below] + part * points[below + 1];
}

std::optional<double> Value::constant() const {
  for (const ValueCase &one : cases) {
    if (one.points.size() > 1 || one.points[0] != cases[0].points[0]) return std::nullopt;
  }
  const bool falls_through = std::ranges::none_of(cases, [](const ValueCase &one) { return one.filter.empty() || one.filter == "*"; });
  return falls_through ? std::nullopt : std::optional(cases[0].points[0]);
}

std::optional<Value> parse_value(const Node &node, const Parameter &parameter, Diagnostics *diagnostics) {
  return ValueReader(parameter, diagnostics).read(node);
}

}  // namespace chorus::merge
