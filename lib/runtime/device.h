// SPDX-License-Identifier: Apache-2.0
// A device by name: the backends that serve it, opened, in one memory space.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "runtime/context.h"
#include "runtime/kernel.h"

namespace chorus {

class Device {
 public:
  Device(std::shared_ptr<const Context> context, std::string name, std::vector<Backend *> backends)
      : context_(std::move(context)), name_(std::move(name)), backends_(std::move(backends)) {}

  const Context &context() const { return *context_; }
  const std::string &name() const { return name_; }
  const std::vector<Backend *> &backends() const { return backends_; }
  const Backend &first() const { return *backends_.front(); }

 private:
  std::shared_ptr<const Context> context_;
  std::string name_;
  std::vector<Backend *> backends_;
};

// Memory of a device; see chorus_memory_allocate() and its kin.
void *device_allocate(const Device &device, uint64_t bytes);
void device_free(const Device &device, void *memory);
void device_copy(const Device &device, void *to, const void *from, uint64_t bytes);
void device_check(const Device &device);

}  // namespace chorus
