// SPDX-License-Identifier: Apache-2.0
// The context: options, log, pool, plugins and devices. Shared by everything made from it.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "chorus/context.h"
#include "chorus/plugin.h"
#include "runtime/error.h"
#include "runtime/options.h"
#include "runtime/pool.h"

namespace chorus {

// What a spec collects.
struct ContextSettings {
  std::vector<std::pair<std::string, std::string>> options;
  std::vector<std::string> plugins;  // explicit paths
  chorus_log_fn log = nullptr;
  void *log_user = nullptr;
  chorus_log_level log_level = CHORUS_LOG_WARNING;
  HostPool host_pool;
};

// A plugin that was found, and what became of it.
struct PluginRecord {
  std::string path, name, version, reason;
  chorus_status status = CHORUS_OK;
  const chorus_plugin *plugin = nullptr;
  int32_t device_count = 0;
};

// One device of one plugin, opened when first used.
class Backend {
 public:
  Backend(const chorus_plugin *plugin, const chorus_host *host, uint64_t index, const chorus_device_desc &desc);
  ~Backend();
  Backend(const Backend &) = delete;
  Backend &operator=(const Backend &) = delete;

  // Opens the device; throws the plugin's reason, again at every call.
  void open();
  // "" when it opens, else the reason; lives as long as this.
  const char *open_or_reason();
  bool is_reference() const;
  bool is_host_memory() const { return device_type == CHORUS_DEVICE_HOST; }
  chorus_plugin_device *device() const { return device_; }
  const std::vector<const chorus_kernel *> &kernels() const { return kernels_; }
  const chorus_device_memory *memory() const { return memory_; }

  const chorus_plugin *const plugin;
  const std::string name, description;
  const int32_t device_type, device_id;

 private:
  const chorus_host *host_;
  uint64_t index_;
  std::mutex mutex_;
  chorus_plugin_device *device_ = nullptr;
  const chorus_device_memory *memory_ = nullptr;
  std::vector<const chorus_kernel *> kernels_;
  std::string reason_;
};

class Context {
 public:
  static std::shared_ptr<const Context> create(const ContextSettings &settings);
  ~Context();

  void log(chorus_log_level level, const std::string &message) const noexcept;
  const Options &options() const { return options_; }
  const Pool &pool() const { return *pool_; }
  const std::vector<PluginRecord> &plugins() const { return plugins_; }
  const std::vector<std::unique_ptr<Backend>> &backends() const { return backends_; }

 private:
  explicit Context(const ContextSettings &settings);
  void add_builtin();
  void add_explicit(const std::vector<std::string> &paths);
  void add_found();
  void add_plugin(const chorus_plugin *plugin, const std::string &path);
  void add_failure(const std::string &path, const Failure &failure);
  void set_options(const ContextSettings &settings);
  void list_devices(PluginRecord *record);
  void make_host();

  ContextSettings settings_;
  Options options_;
  std::unique_ptr<Pool> pool_;
  chorus_host host_;
  std::vector<PluginRecord> plugins_;
  std::vector<std::unique_ptr<Backend>> backends_;
};

// The context behind a public handle.
std::shared_ptr<const Context> context_of(const chorus_context *context);

// Where a plugin's set_error writes; becomes a Failure.
struct ErrorSlot {
  Error error{CHORUS_OK, "", {}};
};

// Throws what `status` and `slot` say, or, where the plugin said nothing, that `what` failed.
void throw_plugin_error(chorus_status status, const ErrorSlot &slot, const std::string &what);

}  // namespace chorus

// The public handle holds a share of the context.
struct chorus_context {
  std::shared_ptr<const chorus::Context> shared;
};
