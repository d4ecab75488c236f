// SPDX-License-Identifier: Apache-2.0
// Values of options are text, parsed strictly by type.
#include "runtime/options.h"

#include <algorithm>
#include <charconv>

#include "runtime/error.h"
#include "runtime/nearest.h"

namespace chorus {
namespace {

template <typename T>
bool parse(const std::string &text, T *out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size();
}

std::vector<std::string> names_of(const std::vector<Option> &table) {
  std::vector<std::string> names;
  for (const Option &option : table) names.push_back(option.name);
  return names;
}

bool is_in_range(const Option &option, const std::string &value) {
  int64_t integer = 0;
  double number = 0;
  switch (option.type) {
    case CHORUS_OPTION_INTEGER:
      return parse(value, &integer) && static_cast<double>(integer) >= option.minimum &&
             static_cast<double>(integer) <= option.maximum;
    case CHORUS_OPTION_NUMBER:
      return parse(value, &number) && number >= option.minimum && number <= option.maximum;
    case CHORUS_OPTION_BOOLEAN:
      return value == "true" || value == "false";
    default:
      return option.choices.empty() || std::ranges::find(option.choices, value) != option.choices.end();
  }
}

std::vector<std::string> split_choices(const std::string &range) {
  std::vector<std::string> out;
  if (range.find('|') == std::string::npos) return out;
  for (size_t begin = 0; begin <= range.size();) {
    const size_t end = std::min(range.find('|', begin), range.size());
    out.push_back(range.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

}  // namespace

const char *option_type_name(chorus_option_type type) {
  constexpr const char *kNames[] = {"string", "integer", "number", "boolean"};
  return type >= 0 && type < 4 ? kNames[type] : "unknown";
}

const std::vector<Option> &core_options() {
  static const std::vector<Option> options = {
      {"threads", "0", "0 to 1024", "Threads of the context's pool; 0: as many as the process may use.",
       CHORUS_OPTION_INTEGER, 0, 1024, {}},
      {"fallback", "warn", "warn|error",
       "What happens when a host device has no kernel for an object: use the reference backend and warn once, or fail.",
       CHORUS_OPTION_STRING, 0, 0, {"warn", "error"}},
      {"plugins", "search", "search|explicit|none",
       "search: plugins given by path and those found in the search folders; explicit: only those given by path; none: "
       "the built-in backend alone, and a path is an error.",
       CHORUS_OPTION_STRING, 0, 0, {"search", "explicit", "none"}},
  };
  return options;
}

std::vector<Option> options_of(const chorus_plugin &plugin, const std::string &path) {
  std::vector<Option> out;
  const std::string prefix = std::string(plugin.name) + ".";
  for (uint64_t i = 0; i < plugin.option_count; ++i) {
    const chorus_plugin_option &row = *plugin.options[i];
    const std::string name = row.name;
    if (!name.starts_with(prefix) || name.size() == prefix.size()) {
      fail(CHORUS_INVALID_ARGUMENT, "{}: option '{}' must start with '{}'", path, name, prefix);
    }
    if (row.type < CHORUS_OPTION_STRING || row.type > CHORUS_OPTION_BOOLEAN) {
      fail(CHORUS_INVALID_ARGUMENT, "{}: option '{}' has the unknown type {}", path, name, row.type);
    }
    if (std::ranges::find(out, name, &Option::name) != out.end()) {
      fail(CHORUS_INVALID_ARGUMENT, "{}: option '{}' is listed twice", path, name);
    }
    out.push_back({name, row.default_value, row.range, row.doc, row.type, row.minimum, row.maximum,
                   row.type == CHORUS_OPTION_STRING ? split_choices(row.range) : std::vector<std::string>()});
    if (!is_in_range(out.back(), row.default_value)) {
      fail(CHORUS_INVALID_ARGUMENT, "{}: option '{}': its default '{}' is out of its range {}", path, name,
           row.default_value, row.range);
    }
  }
  return out;
}

void check_option_value(const Option &option, const std::string &value) {
  if (!is_in_range(option, value)) {
    fail(CHORUS_INVALID_ARGUMENT, "option '{}' is '{}'; it takes a {}: {}", option.name, value,
         option_type_name(option.type), option.range);
  }
}

void Options::add(std::vector<Option> options) {
  std::ranges::move(options, std::back_inserter(table_));
}

const Option &Options::find(const std::string &name) const {
  const auto found = std::ranges::find(table_, name, &Option::name);
  if (found == table_.end()) {
    fail(CHORUS_NOT_FOUND, "there is no option '{}'{}", name, did_you_mean(name, names_of(table_)));
  }
  return *found;
}

void Options::set(const std::string &name, const std::string &value) {
  check_option_value(find(name), value);
  values_[name] = value;
}

const std::string &Options::get(const std::string &name) const {
  const auto set = values_.find(name);
  return set != values_.end() ? set->second : find(name).default_value;
}

int64_t Options::get_integer(const std::string &name) const {
  int64_t value = 0;
  parse(get(name), &value);
  return value;
}

}  // namespace chorus
