// SPDX-License-Identifier: Apache-2.0
// `chorus version`: of the library that was loaded, and of the plugin ABI it speaks.
#include <fmt/format.h>

#include "chorus/plugin.h"
#include "command.h"

namespace chorus_cli {

void add_version(CLI::App *program) {
  struct Arguments {
    bool json = false, only_number = false;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App *command = program->add_subcommand("version", "Version of the library and of the plugin ABI");
  command->add_flag("--json", arguments->json, "Print as JSON");
  command->add_flag("--short", arguments->only_number, "Print the number alone");
  command->callback([arguments] {
    const chorus_plugin *builtin = chorus_reference_plugin();
    if (arguments->json) {
      print_json({{"version", chorus_version()},
                  {"plugin_abi", fmt::format("{}.{}", builtin->abi_major, builtin->abi_minor)},
                  {"layout_hash", fmt::format("{:016x}", builtin->layout_hash)}});
    } else if (arguments->only_number) {
      fmt::print("{}\n", chorus_version());
    } else {
      fmt::print("chorus {}, plugin ABI {}.{}, layout {:016x}\n", chorus_version(), builtin->abi_major,
                 builtin->abi_minor, builtin->layout_hash);
    }
  });
}

}  // namespace chorus_cli
