// SPDX-License-Identifier: Apache-2.0
// The context: options, log, pool, plugins and devices. Shared by everything made from it.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "chorus/context.h"
#include "chorus/plugin.h"
#include "runtime/backend.h"
#include "runtime/options.h"
#include "runtime/pool.h"
#include "runtime/workspace.h"

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

class Context {
 public:
  static std::shared_ptr<const Context> create(const ContextSettings &settings);
  ~Context();

  void log(chorus_log_level level, std::string_view message) const noexcept;
  const Options &options() const { return options_; }
  const Pool &pool() const { return *pool_; }
  const WorkspaceCaches &workspaces() const { return workspaces_; }
  const std::vector<PluginRecord> &plugins() const { return plugins_; }
  const std::vector<std::unique_ptr<Backend>> &backends() const { return backends_; }

 private:
  explicit Context(const ContextSettings &settings);
  void add_explicit(const std::vector<std::string> &paths);
  void add_found();
  void add_plugin(const chorus_plugin *plugin, const std::string &path);
  void add_failure(const std::string &path, const Failure &failure);
  void set_plugin_option(const std::string &name, const std::string &value);
  void list_devices(PluginRecord *record);
  void add_devices_of(PluginRecord *record);
  void make_host();

  ContextSettings settings_;
  Options options_;
  std::unique_ptr<Pool> pool_;
  WorkspaceCaches workspaces_;
  chorus_host host_;
  std::vector<PluginRecord> plugins_;
  std::vector<std::unique_ptr<Backend>> backends_;
};

// The context behind a public handle.
std::shared_ptr<const Context> context_of(const chorus_context *context);

}  // namespace chorus

// The public handle holds a share of the context.
struct chorus_context {
  std::shared_ptr<const chorus::Context> shared;
};
