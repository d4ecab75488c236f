// SPDX-License-Identifier: Apache-2.0
// `chorus plugins`: which backends were found, where, why not; their devices; the option table.
#include <fmt/format.h>

#include "command.h"

namespace chorus_cli {
namespace {

Json plugins_of(const chorus_context *context) {
  Json list = Json::array();
  for (size_t i = 0; i < chorus_context_get_plugin_count(context); ++i) {
    chorus_plugin_info info = CHORUS_PLUGIN_INFO_INIT;
    Call call;
    call(chorus_context_get_plugin(context, i, &info, call.slot()));
    list.push_back({{"name", info.name},
                    {"version", info.version},
                    {"path", info.path},
                    {"status", chorus_status_get_name(info.status)},
                    {"devices", info.device_count},
                    {"reason", info.reason}});
  }
  return list;
}

Json devices_of(const chorus_context *context) {
  Json list = Json::array();
  for (size_t i = 0; i < chorus_context_get_device_count(context); ++i) {
    chorus_device_info info = CHORUS_DEVICE_INFO_INIT;
    Call call;
    call(chorus_context_get_device(context, i, &info, call.slot()));
    list.push_back({{"name", info.name},
                    {"plugin", info.plugin},
                    {"description", info.description},
                    {"kernels", info.kernel_count},
                    {"reason", info.reason}});
  }
  return list;
}

Json options_of(const chorus_context *context) {
  Json list = Json::array();
  for (size_t i = 0; i < chorus_context_get_option_count(context); ++i) {
    chorus_option_info info = CHORUS_OPTION_INFO_INIT;
    Call call;
    call(chorus_context_get_option(context, i, &info, call.slot()));
    list.push_back({{"name", info.name},
                    {"type", info.type},
                    {"default", info.default_value},
                    {"value", info.value},
                    {"range", info.range},
                    {"doc", info.doc}});
  }
  return list;
}

std::string text_of(const Json &value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

void print_list(const Json &list, const std::vector<std::string> &keys) {
  std::vector<std::vector<std::string>> rows;
  for (const Json &item : list) {
    std::vector<std::string> row;
    for (const std::string &key : keys) row.push_back(text_of(item[key]));
    rows.push_back(row);
  }
  print_table(keys, rows);
}

}  // namespace

void add_plugins(CLI::App *program) {
  struct Arguments {
    Common common;
    bool options = false;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App *command = program->add_subcommand("plugins", "Backends: what was found, where, and why not");
  add_common(command, &arguments->common);
  command->add_flag("--options", arguments->options, "Print the option table instead");
  command->footer(
      "Searched: --plugin, CHORUS_PLUGIN_PATH, chorus-plugins/ beside libchorus, the installed folder.\n"
      "Examples:\n  chorus plugins\n  chorus plugins --options\n  chorus plugins --plugin ./chorus-mine.so --json");
  command->callback([arguments] {
    const Context context = make_context(arguments->common);
    if (arguments->options) {
      const Json options = options_of(context.get());
      arguments->common.json ? print_json(options)
                             : print_list(options, {"name", "type", "default", "value", "range", "doc"});
      return;
    }
    const Json plugins = plugins_of(context.get()), devices = devices_of(context.get());
    if (arguments->common.json) {
      print_json({{"plugins", plugins}, {"devices", devices}});
      return;
    }
    print_list(plugins, {"name", "version", "status", "devices", "path", "reason"});
    fmt::print("\n");
    print_list(devices, {"name", "plugin", "kernels", "description", "reason"});
  });
}

}  // namespace chorus_cli
