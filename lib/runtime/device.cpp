// SPDX-License-Identifier: Apache-2.0
// Finding a device by name, and its memory.
#include "runtime/device.h"

#include <algorithm>
#include <cstring>

#include "runtime/allocate.h"
#include "runtime/nearest.h"

namespace chorus {
namespace {

std::vector<std::string> device_names(const Context &context) {
  std::vector<std::string> names = {"auto"};
  for (const auto &backend : context.backends()) {
    if (std::ranges::find(names, backend->name) == names.end()) names.push_back(backend->name);
  }
  return names;
}

// Backends of `name` that open; the reasons of those that do not go to `failures`.
std::vector<Backend *> open_backends(const Context &context, const std::string &name,
                                     std::vector<std::shared_ptr<const Error>> *failures) {
  std::vector<Backend *> out;
  for (const auto &backend : context.backends()) {
    if (name == "auto" ? !backend->is_host_memory() : backend->name != name) continue;
    try {
      backend->open();
      out.push_back(backend.get());
    } catch (const Failure &failure) {
      context.log(CHORUS_LOG_WARNING, failure.what());
      failures->push_back(failure.error());
    }
  }
  return out;
}

}  // namespace

DevicePtr find_device(const std::shared_ptr<const Context> &context, const char *name) {
  if (name == nullptr) fail(CHORUS_INVALID_ARGUMENT, "device is NULL; give a name such as \"auto\" or \"cpu\"");
  Error none{CHORUS_NOT_FOUND, "", {}};
  std::vector<Backend *> backends = open_backends(*context, name, &none.causes);
  if (!backends.empty()) return std::make_shared<Device>(context, name, std::move(backends));
  const std::vector<std::string> names = device_names(*context);
  if (none.causes.empty()) {
    none.message = fmt::format("there is no device '{}'{}; there are: {}. `chorus plugins` says why a backend is missing",
                               name, did_you_mean(name, names), fmt::join(names, ", "));
  } else {
    none.code = CHORUS_UNAVAILABLE;
    none.message = fmt::format("device '{}' cannot be opened", name);
  }
  throw Failure(std::move(none));
}

const std::string &device_name(const Device &device) { return device.name(); }
int32_t device_type(const Device &device) { return device.first().device_type; }
int32_t device_id(const Device &device) { return device.first().device_id; }
bool is_host_memory(const Device &device) { return device.first().is_host_memory(); }

void *device_allocate(const Device &device, uint64_t bytes) {
  const Backend &backend = device.first();
  if (backend.is_host_memory()) {
    void *memory = allocate_or_null(bytes, CHORUS_WORKSPACE_ALIGNMENT_HOST);
    if (memory == nullptr) fail(CHORUS_RESOURCE_EXHAUSTED, "no memory for {} bytes on '{}'", bytes, device.name());
    return memory;
  }
  ErrorSlot slot;
  void *memory = nullptr;
  const chorus_status status = backend.memory()->allocate(backend.device(), bytes, &memory, &slot);
  if (status != CHORUS_OK) throw_plugin_error(status, slot, fmt::format("allocating {} bytes on '{}'", bytes, device.name()));
  return memory;
}

void device_free(const Device &device, void *memory) {
  const Backend &backend = device.first();
  if (memory == nullptr) return;
  if (backend.is_host_memory()) {
    deallocate(memory);
  } else {
    backend.memory()->free(backend.device(), memory);
  }
}

void device_copy(const Device &device, void *to, const void *from, uint64_t bytes) {
  const Backend &backend = device.first();
  if (bytes == 0) return;
  if (backend.is_host_memory()) {
    std::memmove(to, from, bytes);
    return;
  }
  ErrorSlot slot;
  const chorus_status status = backend.memory()->copy(backend.device(), to, from, bytes, nullptr, &slot);
  if (status != CHORUS_OK) throw_plugin_error(status, slot, fmt::format("copying {} bytes on '{}'", bytes, device.name()));
}

void device_check(const Device &device) {
  for (const Backend *backend : device.backends()) {
    if (backend->plugin->check_device == nullptr) continue;
    ErrorSlot slot;
    const chorus_status status = backend->plugin->check_device(backend->device(), &slot);
    if (status != CHORUS_OK) throw_plugin_error(status, slot, fmt::format("device '{}'", device.name()));
  }
}

}  // namespace chorus
