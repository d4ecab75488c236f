// SPDX-License-Identifier: Apache-2.0
// Builds a context: plugins first, since their tables bring options; then the options; then devices and pool.
#include "runtime/context.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "runtime/allocate.h"
#include "runtime/nearest.h"
#include "runtime/plugin_load.h"
#include "runtime/plugin_search.h"

namespace chorus {
namespace {

const Context &self_of(void *self) { return *static_cast<const Context *>(self); }

void host_log(void *self, chorus_log_level level, const char *message, size_t length) {
  self_of(self).log(level, {message, length});
}

chorus_status host_set_error(chorus_error_slot slot, chorus_status code, const char *message, size_t length) {
  if (slot != nullptr) {
    auto *target = static_cast<ErrorSlot *>(slot);
    try {
      target->error = Error{code, std::string(message, length), {}};
    } catch (...) {
      target->error.code = code;
    }
  }
  return code;
}

void *host_allocate(void *, uint64_t bytes, uint64_t alignment) { return allocate_or_null(bytes, alignment); }
void host_deallocate(void *, void *memory, uint64_t, uint64_t) { deallocate(memory); }

const char *host_get_option(void *self, const char *name) {
  const Options &options = self_of(self).options();
  const auto known = std::ranges::find(options.table(), std::string_view(name), &Option::name);
  return known == options.table().end() ? nullptr : options.get(known->name).c_str();
}

void host_parallel_for(void *self, uint64_t count, chorus_task_fn task, void *argument) {
  self_of(self).pool().parallel_for(count, task, argument);
}

int32_t host_thread_count(void *self) { return self_of(self).pool().threads(); }

bool is_plugin_option(const std::string &name) { return name.find('.') != std::string::npos; }

void check_device(const chorus_device_desc *desc, uint64_t index, const PluginRecord &record) {
  if (desc == nullptr || desc->struct_size < CHORUS_END_OF(chorus_device_desc, device_id) || desc->name == nullptr ||
      desc->name[0] == '\0') {
    fail(CHORUS_INTERNAL, "device {} has no name or a short struct_size", index);
  }
  const std::string_view name = desc->name;
  if (name == "auto" || (name == "reference" && record.plugin != chorus_reference_plugin())) {
    fail(CHORUS_INTERNAL, "device {} is called '{}', a name of the host's own", index, name);
  }
}

}  // namespace

std::shared_ptr<const Context> Context::create(const ContextSettings &settings) {
  return std::shared_ptr<const Context>(new Context(settings));
}

Context::Context(const ContextSettings &settings) : settings_(settings) {
  options_.add(core_options());
  make_host();
  for (const auto &[name, value] : settings.options) {
    if (!is_plugin_option(name)) options_.set(name, value);
  }
  add_plugin(check_plugin(chorus_reference_plugin(), "built-in backend"), "");
  add_explicit(settings.plugins);
  if (options_.get("plugins") == "search") add_found();
  for (const auto &[name, value] : settings.options) {
    if (is_plugin_option(name)) set_plugin_option(name, value);
  }
  pool_ = std::make_unique<Pool>(static_cast<int32_t>(options_.get_integer("threads")), settings.host_pool);
  for (PluginRecord &record : plugins_) {
    if (record.plugin != nullptr) list_devices(&record);
  }
}

Context::~Context() = default;

void Context::make_host() {
  host_ = {CHORUS_END_OF(chorus_host, thread_count), this, host_log, host_set_error, host_allocate, host_deallocate,
           host_get_option, host_parallel_for, host_thread_count};
}

// Names of plugins are unique in a context: they prefix options and kernels. The first found keeps the name.
void Context::add_plugin(const chorus_plugin *plugin, const std::string &path) {
  for (const PluginRecord &record : plugins_) {
    if (record.plugin == plugin) return;
    if (record.plugin != nullptr && record.name == plugin->name) {
      fail(CHORUS_ALREADY_EXISTS, "{}: a plugin named '{}' is already loaded ({})", path, record.name,
           record.path.empty() ? "the built-in one" : record.path);
    }
  }
  options_.add(options_of(*plugin, path));
  plugins_.push_back({path, plugin->name, plugin->version, "", CHORUS_OK, plugin, 0});
  if (!path.empty()) log(CHORUS_LOG_DEBUG, fmt::format("loaded plugin {} {} from {}", plugin->name, plugin->version, path));
}

void Context::add_failure(const std::string &path, const Failure &failure) {
  log(CHORUS_LOG_INFO, fmt::format("skipped plugin {}", failure.what()));
  plugins_.push_back({path, "", "", failure.what(), failure.error()->code, nullptr, 0});
}

// What was asked for by path must load: all failures together are the error.
void Context::add_explicit(const std::vector<std::string> &paths) {
  if (!paths.empty() && options_.get("plugins") == "none") {
    fail(CHORUS_INVALID_ARGUMENT, "plugin {} is given, and option plugins=none forbids all", paths.front());
  }
  Error all{CHORUS_FAILED_PRECONDITION, "a plugin given by path cannot be loaded", {}};
  for (const std::string &path : paths) {
    try {
      std::error_code error;
      const auto real = std::filesystem::canonical(path, error);
      if (error) fail(CHORUS_NOT_FOUND, "{}: {}", path, error.message());
      add_plugin(load_plugin(real.string()), real.string());
    } catch (const Failure &failure) {
      all.causes.push_back(failure.error());
    }
  }
  if (!all.causes.empty()) throw Failure(std::move(all));
}

// What the search finds is skipped when it does not fit; a loaded file hides others of its name in later folders.
void Context::add_found() {
  const auto warn = [this](const std::string &message) { log(CHORUS_LOG_WARNING, message); };
  std::map<std::string, std::string> loaded;  // file name -> real path
  for (const PluginCandidate &candidate : search_plugins(warn)) {
    const std::string name = std::filesystem::path(candidate.path).filename();
    try {
      if (!candidate.refusal.empty()) fail(CHORUS_PERMISSION_DENIED, "{}: {}", candidate.path, candidate.refusal);
      const auto hiding = loaded.find(name);
      if (hiding != loaded.end() && hiding->second == candidate.real_path) continue;
      if (hiding != loaded.end()) fail(CHORUS_ALREADY_EXISTS, "{}: hidden by {}", candidate.path, hiding->second);
      add_plugin(load_plugin(candidate.real_path), candidate.real_path);
      loaded[name] = candidate.real_path;
    } catch (const Failure &failure) {
      add_failure(candidate.path, failure);
    }
  }
}

void Context::set_plugin_option(const std::string &name, const std::string &value) {
  const std::string plugin = name.substr(0, name.find('.'));
  const auto same = [&](const PluginRecord &record) { return record.plugin != nullptr && record.name == plugin; };
  if (std::ranges::none_of(plugins_, same)) {
    std::vector<std::string> names;
    for (const PluginRecord &record : plugins_) names.push_back(record.name);
    fail(CHORUS_NOT_FOUND, "option '{}': no plugin '{}' is loaded{}. `chorus plugins` says why", name, plugin,
         did_you_mean(plugin, names));
  }
  options_.set(name, value);
}

void Context::list_devices(PluginRecord *record) {
  const size_t before = backends_.size();
  try {
    add_devices_of(record);
  } catch (const std::exception &error) {  // a C++ plugin's own, or a device that breaks the contract
    backends_.resize(before);
    record->device_count = 0;
    record->reason = fmt::format("{}: listing its devices failed: {}", record->path, error.what());
    log(CHORUS_LOG_WARNING, record->reason);
  }
}

void Context::add_devices_of(PluginRecord *record) {
  char why[512] = "";
  uint64_t count = 0;
  const chorus_device_desc *const *devices = record->plugin->list_devices(&host_, &count, why, sizeof(why));
  why[sizeof(why) - 1] = '\0';
  if (devices == nullptr) count = 0;
  if (count == 0) record->reason = why[0] != '\0' ? why : "it offers no device and says no reason";
  for (uint64_t i = 0; i < count; ++i) {
    check_device(devices[i], i, *record);
    backends_.push_back(std::make_unique<Backend>(record->plugin, &host_, i, *devices[i]));
    ++record->device_count;
  }
}

void Context::log(chorus_log_level level, std::string_view message) const noexcept {
  if (settings_.log != nullptr && level >= settings_.log_level) {
    settings_.log(settings_.log_user, level, message.data(), message.size());
  }
}

std::shared_ptr<const Context> context_of(const chorus_context *context) {
  if (context == nullptr) fail(CHORUS_INVALID_ARGUMENT, "context is NULL; it is required");
  return context->shared;
}

}  // namespace chorus
