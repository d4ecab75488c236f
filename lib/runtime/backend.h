// SPDX-License-Identifier: Apache-2.0
// One device of one plugin, and the way its errors take.
#pragma once
#include <mutex>
#include <string>
#include <vector>

#include "chorus/plugin.h"
#include "runtime/error.h"

namespace chorus {

// Where a plugin's set_error writes; becomes a Failure.
struct ErrorSlot {
  Error error{CHORUS_OK, "", {}};
};

// Throws what `status` and `slot` say after `what`, which names plugin and doing; where the plugin said nothing, its
// status in words.
[[noreturn]] void throw_plugin_error(chorus_status status, const ErrorSlot &slot, const std::string &what);

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
  // Kernels and memory functions of an opened device, checked slot by slot.
  void take(chorus_plugin_device *device, const std::string &what);

  const chorus_host *host_;
  uint64_t index_;
  std::mutex mutex_;
  chorus_plugin_device *device_ = nullptr;
  const chorus_device_memory *memory_ = nullptr;
  std::vector<const chorus_kernel *> kernels_;
  std::string reason_;
};

}  // namespace chorus
