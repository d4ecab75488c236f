// SPDX-License-Identifier: Apache-2.0
// Builds a context: plugins first, since their tables bring options; then the options; then devices and pool.
#include "runtime/context.h"

#include <algorithm>
#include <filesystem>

#include "runtime/allocate.h"
#include "runtime/nearest.h"
#include "runtime/plugin_load.h"
#include "runtime/plugin_search.h"

namespace chorus {
namespace {

const Context &self_of(void *self) { return *static_cast<const Context *>(self); }

void host_log(void *self, chorus_log_level level, const char *message, size_t length) {
  self_of(self).log(level, std::string(message, length));
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

}  // namespace

Backend::Backend(const chorus_plugin *p, const chorus_host *host, uint64_t index, const chorus_device_desc &desc)
    : plugin(p),
      name(desc.name),
      description(desc.description != nullptr ? desc.description : ""),
      device_type(desc.device_type),
      device_id(desc.device_id),
      host_(host),
      index_(index) {}

Backend::~Backend() {
  if (device_ != nullptr) plugin->close_device(device_);
}

bool Backend::is_reference() const { return plugin == chorus_reference_plugin(); }

void Backend::open() {
  const std::lock_guard lock(mutex_);
  if (device_ != nullptr) return;
  ErrorSlot slot;
  chorus_plugin_device *device = nullptr;
  const chorus_status status = plugin->open_device(host_, index_, &device, &slot);
  const std::string what = fmt::format("opening device '{}' of plugin '{}'", name, plugin->name);
  if (status != CHORUS_OK) throw_plugin_error(status, slot, what);
  if (device == nullptr) fail(CHORUS_INTERNAL, "{}: the plugin reported success and gave no device", what);
  uint64_t count = 0;
  const chorus_kernel *const *kernels = plugin->get_kernels(device, &count);
  for (uint64_t i = 0; kernels != nullptr && i < count; ++i) {
    const chorus_kernel *kernel = kernels[i];
    const bool is_whole = kernel != nullptr && kernel->struct_size >= CHORUS_END_OF(chorus_kernel, prepared_bytes) &&
                          kernel->op && kernel->name && kernel->score && kernel->prepare && kernel->workspace_size &&
                          kernel->run && kernel->release;
    if (!is_whole) {
      plugin->close_device(device);
      fail(CHORUS_INVALID_ARGUMENT, "{}: kernel {} has an empty slot or a short struct_size", what, i);
    }
    kernels_.push_back(kernel);
  }
  memory_ = plugin->get_memory != nullptr ? plugin->get_memory(device) : nullptr;
  device_ = device;
}

const char *Backend::open_or_reason() {
  try {
    open();
    return "";
  } catch (const Failure &failure) {
    const std::lock_guard lock(mutex_);
    if (reason_.empty()) reason_ = failure.what();
    return reason_.c_str();
  }
}

void throw_plugin_error(chorus_status status, const ErrorSlot &slot, const std::string &what) {
  if (slot.error.message.empty()) fail(status, "{} failed with status {} and no message", what, status);
  throw Failure(Error{status, fmt::format("{}: {}", what, slot.error.message), {}});
}

std::shared_ptr<const Context> Context::create(const ContextSettings &settings) {
  return std::shared_ptr<const Context>(new Context(settings));
}

Context::Context(const ContextSettings &settings) : settings_(settings) {
  options_.add(core_options());
  make_host();
  for (const auto &[name, value] : settings.options) {
    if (name.find('.') == std::string::npos) options_.set(name, value);
  }
  add_builtin();
  add_explicit(settings.plugins);
  if (options_.get("plugins") == "search") add_found();
  set_options(settings);
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

void Context::add_builtin() {
  const chorus_plugin *plugin = chorus_reference_plugin();
  add_plugin(check_plugin(plugin, "built-in backend"), "");
}

void Context::add_plugin(const chorus_plugin *plugin, const std::string &path) {
  const auto same = [&](const PluginRecord &record) { return record.plugin == plugin; };
  if (std::ranges::any_of(plugins_, same)) return;
  plugins_.push_back({path, plugin->name, plugin->version, "", CHORUS_OK, plugin, 0});
  options_.add(options_of(*plugin));
}

void Context::add_failure(const std::string &path, const Failure &failure) {
  plugins_.push_back({path, "", "", failure.what(), failure.error()->code, nullptr, 0});
}

// What was asked for by name must load: all failures together are the error.
void Context::add_explicit(const std::vector<std::string> &paths) {
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

void Context::add_found() {
  const auto warn = [this](const std::string &message) { log(CHORUS_LOG_WARNING, message); };
  for (const PluginCandidate &candidate : search_plugins(warn)) {
    try {
      if (!candidate.refusal.empty()) fail(CHORUS_PERMISSION_DENIED, "{}: {}", candidate.path, candidate.refusal);
      add_plugin(load_plugin(candidate.path), candidate.path);
    } catch (const Failure &failure) {
      log(CHORUS_LOG_INFO, fmt::format("skipped plugin {}", failure.what()));
      add_failure(candidate.path, failure);
    }
  }
}

void Context::set_options(const ContextSettings &settings) {
  for (const auto &[name, value] : settings.options) {
    if (name.find('.') != std::string::npos) options_.set(name, value);
  }
}

void Context::list_devices(PluginRecord *record) {
  char why[512] = "";
  uint64_t count = 0;
  const chorus_device_desc *const *devices = record->plugin->list_devices(&host_, &count, why, sizeof(why));
  why[sizeof(why) - 1] = '\0';
  if (devices == nullptr) count = 0;
  if (count == 0) record->reason = why[0] != '\0' ? why : "it offers no device and says no reason";
  for (uint64_t i = 0; i < count; ++i) {
    if (devices[i] == nullptr || devices[i]->name == nullptr) continue;
    backends_.push_back(std::make_unique<Backend>(record->plugin, &host_, i, *devices[i]));
    ++record->device_count;
  }
}

void Context::log(chorus_log_level level, const std::string &message) const noexcept {
  if (settings_.log != nullptr && level >= settings_.log_level) {
    settings_.log(settings_.log_user, level, message.data(), message.size());
  }
}

std::shared_ptr<const Context> context_of(const chorus_context *context) {
  if (context == nullptr) fail(CHORUS_INVALID_ARGUMENT, "context is NULL; it is required");
  return context->shared;
}

}  // namespace chorus
