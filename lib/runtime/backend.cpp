// SPDX-License-Identifier: Apache-2.0
// Opening a device: every slot the host may call is checked before the first call.
#include "runtime/backend.h"

#include "chorus/context.h"

namespace chorus {
namespace {

// Every slot filled that the host may call.
bool is_whole(const chorus_kernel *kernel) {
  return kernel != nullptr && kernel->struct_size >= CHORUS_END_OF(chorus_kernel, prepared_bytes) && kernel->op &&
         kernel->name && kernel->score && kernel->prepare && kernel->workspace_size && kernel->run && kernel->release;
}

bool is_whole(const chorus_device_memory &m) {
  return m.struct_size >= CHORUS_END_OF(chorus_device_memory, event_wait) && m.allocate && m.free && m.host_allocate &&
         m.host_free && m.copy && m.stream_create && m.stream_destroy && m.stream_wait && m.event_create &&
         m.event_destroy && m.event_record && m.event_wait;
}

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
  const std::string what = fmt::format("opening device '{}' of plugin '{}'", name, plugin->name);
  const chorus_status status = plugin->open_device(host_, index_, &device, &slot);
  if (status != CHORUS_OK) throw_plugin_error(status, slot, what);
  if (device == nullptr) fail(CHORUS_INTERNAL, "{}: the plugin reported success and gave no device", what);
  try {
    take(device, what);
  } catch (...) {
    kernels_.clear();
    plugin->close_device(device);
    throw;
  }
  device_ = device;
}

void Backend::take(chorus_plugin_device *device, const std::string &what) {
  uint64_t count = 0;
  const chorus_kernel *const *kernels = plugin->get_kernels(device, &count);
  for (uint64_t i = 0; kernels != nullptr && i < count; ++i) {
    if (!is_whole(kernels[i])) fail(CHORUS_INTERNAL, "{}: kernel {} has an empty slot or a short struct_size", what, i);
    kernels_.push_back(kernels[i]);
  }
  memory_ = plugin->get_memory != nullptr ? plugin->get_memory(device) : nullptr;
  if (is_host_memory()) return;
  if (memory_ == nullptr) fail(CHORUS_INTERNAL, "{}: its memory is not the host's, and it offers no memory functions", what);
  if (!is_whole(*memory_)) {
    fail(CHORUS_INTERNAL, "{}: its table of memory functions has an empty slot or a short struct_size", what);
  }
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
  const bool is_known = status > CHORUS_OK && status <= CHORUS_UNAUTHENTICATED;
  if (!is_known) fail(CHORUS_INTERNAL, "{} failed with the unknown status {}: {}", what, status, slot.error.message);
  if (slot.error.message.empty()) fail(status, "{} failed ({}) and gave no reason", what, status_name(status));
  fail(status, "{}: {}", what, slot.error.message);
}

}  // namespace chorus
