// SPDX-License-Identifier: Apache-2.0
// The option table: name, type, default, range and doc of every option, the core's and the plugins', and their values.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "chorus/plugin.h"

namespace chorus {

struct Option {
  std::string name, default_value, range, doc;
  chorus_option_type type = CHORUS_OPTION_STRING;
  double minimum = 0, maximum = 0;
  std::vector<std::string> choices;  // of a string; empty: any
};

const char *option_type_name(chorus_option_type type);

// Options of the core itself.
const std::vector<Option> &core_options();

// Rows of a plugin's table. Fails INVALID_ARGUMENT, after `path`, for a name outside the plugin's namespace, an unknown
// type, a double row, or a default out of its own range.
std::vector<Option> options_of(const chorus_plugin &plugin, const std::string &path);

// Fails INVALID_ARGUMENT unless `value` is of the option's type and range, stating both.
void check_option_value(const Option &option, const std::string &value);

// A table with the values that were set.
class Options {
 public:
  void add(std::vector<Option> options);
  // Checks name and value. Fails NOT_FOUND with the nearest name.
  void set(const std::string &name, const std::string &value);
  const std::string &get(const std::string &name) const;
  int64_t get_integer(const std::string &name) const;
  const std::vector<Option> &table() const { return table_; }

 private:
  const Option &find(const std::string &name) const;
  std::vector<Option> table_;
  std::map<std::string, std::string> values_;
};

}  // namespace chorus
