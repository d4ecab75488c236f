// SPDX-License-Identifier: Apache-2.0
// dlopen(RTLD_NOW | RTLD_LOCAL), query, then the header: magic, versions, sizes, layout hash, sanitizer, slots.
#include "runtime/plugin_load.h"

#include <dlfcn.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string_view>

#include "runtime/elf.h"
#include "runtime/error.h"

namespace chorus {
namespace {

const char *sanitizer_name(uint32_t kind) {
  constexpr const char *kNames[] = {"no sanitizer", "AddressSanitizer", "ThreadSanitizer", "MemorySanitizer"};
  return kind < 4 ? kNames[kind] : "an unknown sanitizer";
}

// The part of the header that never changes place is checked before anything else is read.
void check_header(const chorus_plugin &plugin, const std::string &origin) {
  if (plugin.magic != CHORUS_PLUGIN_MAGIC) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: wrong magic {:#018x}; a Chorus plugin starts with {:#018x}", origin, plugin.magic,
         CHORUS_PLUGIN_MAGIC);
  }
  if (plugin.abi_major != CHORUS_PLUGIN_ABI_MAJOR) {
    fail(CHORUS_FAILED_PRECONDITION, "{}: built for plugin ABI {}.{}; this library speaks {}.{}. Rebuild the plugin",
         origin, plugin.abi_major, plugin.abi_minor, CHORUS_PLUGIN_ABI_MAJOR, CHORUS_PLUGIN_ABI_MINOR);
  }
  constexpr uint64_t kSize = CHORUS_END_OF(chorus_plugin, check_device);
  if (plugin.struct_size < kSize) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: struct_size is {}; this ABI needs at least {}", origin, plugin.struct_size, kSize);
  }
  if (plugin.layout_hash != CHORUS_PLUGIN_LAYOUT_HASH) {
    fail(CHORUS_FAILED_PRECONDITION,
         "{}: layout hash {:016x}, this library has {:016x}. Until 1.0 both must match: rebuild the plugin with these "
         "headers",
         origin, plugin.layout_hash, CHORUS_PLUGIN_LAYOUT_HASH);
  }
  if (plugin.sanitizer != CHORUS_SANITIZER_THIS_BUILD) {
    fail(CHORUS_FAILED_PRECONDITION, "{}: built with {}, this library with {}; build both alike", origin,
         sanitizer_name(plugin.sanitizer), sanitizer_name(CHORUS_SANITIZER_THIS_BUILD));
  }
}

bool is_name_character(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; }

void check_name(const char *name, const std::string &origin) {
  if (name[0] == '\0' || !std::ranges::all_of(std::string_view(name), is_name_character)) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: its name is '{}'; lower-case letters, digits and '-' are allowed", origin, name);
  }
}

void check_slots(const chorus_plugin &plugin, const std::string &origin) {
  const std::pair<const char *, bool> slots[] = {
      {"name", plugin.name != nullptr},
      {"version", plugin.version != nullptr},
      {"list_devices", plugin.list_devices != nullptr},
      {"open_device", plugin.open_device != nullptr},
      {"close_device", plugin.close_device != nullptr},
      {"get_kernels", plugin.get_kernels != nullptr},
      {"options", plugin.options != nullptr || plugin.option_count == 0},
  };
  for (const auto &[name, is_there] : slots) {
    if (!is_there) fail(CHORUS_INVALID_ARGUMENT, "{}: the required slot '{}' is NULL", origin, name);
  }
  check_name(plugin.name, origin);
  for (uint64_t i = 0; i < plugin.option_count; ++i) {
    const chorus_plugin_option *option = plugin.options[i];
    if (option == nullptr || option->struct_size < CHORUS_END_OF(chorus_plugin_option, maximum) || option->name == nullptr || option->default_value == nullptr || option->range == nullptr ||
        option->doc == nullptr) {
      fail(CHORUS_INVALID_ARGUMENT, "{}: row {} of its option table is incomplete", origin, i);
    }
  }
}

const chorus_plugin *query(chorus_plugin_query_fn function, const std::string &path) {
  const chorus_plugin_query_args args = {CHORUS_END_OF(chorus_plugin_query_args, layout_hash), CHORUS_PLUGIN_ABI_MAJOR,
                                         CHORUS_PLUGIN_ABI_MINOR, CHORUS_PLUGIN_LAYOUT_HASH};
  try {
    return function(&args);
  } catch (const std::exception &error) {
    fail(CHORUS_INTERNAL, "{}: chorus_plugin_query threw an exception: {}", path, error.what());
  } catch (...) {
    fail(CHORUS_INTERNAL, "{}: chorus_plugin_query threw something that is no std::exception", path);
  }
}

const chorus_plugin *open_and_check(const std::string &path) {
  check_shared_object(path);
  void *handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) {
    const char *reason = dlerror();
    fail(CHORUS_FAILED_PRECONDITION, "{}: cannot be loaded: {}", path, reason != nullptr ? reason : "no reason given");
  }
  void *symbol = dlsym(handle, CHORUS_PLUGIN_QUERY_SYMBOL);
  if (symbol == nullptr) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: exports no {}; it is no Chorus plugin", path, CHORUS_PLUGIN_QUERY_SYMBOL);
  }
  const chorus_plugin *plugin = query(reinterpret_cast<chorus_plugin_query_fn>(symbol), path);
  if (plugin == nullptr) {
    fail(CHORUS_FAILED_PRECONDITION, "{}: the plugin says that this library does not suit it (query returned NULL)", path);
  }
  return check_plugin(plugin, path);
}

}  // namespace

const chorus_plugin *check_plugin(const chorus_plugin *plugin, const std::string &origin) {
  check_header(*plugin, origin);
  check_slots(*plugin, origin);
  return plugin;
}

const chorus_plugin *load_plugin(const std::string &path) {
  static std::mutex mutex;
  static std::map<std::string, const chorus_plugin *> loaded;
  const std::lock_guard lock(mutex);
  const auto known = loaded.find(path);
  if (known != loaded.end()) return known->second;
  const chorus_plugin *plugin = open_and_check(path);
  loaded.emplace(path, plugin);
  return plugin;
}

}  // namespace chorus
