// SPDX-License-Identifier: Apache-2.0
// How an object reaches a kernel: choose the best one a device offers for a descriptor, prepare it, run it.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "chorus/plugin.h"

namespace chorus {

class Context;

// A device by name, opened. Keeps the context's internals alive.
class Device;
using DevicePtr = std::shared_ptr<Device>;

// The device called `name`; "auto" is the best one in host memory, never a GPU. Fails NOT_FOUND, naming those there are.
DevicePtr find_device(const std::shared_ptr<const Context> &context, const char *name);

const std::string &device_name(const Device &device);
int32_t device_type(const Device &device);
int32_t device_id(const Device &device);
// Whether the host may dereference this device's memory.
bool is_host_memory(const Device &device);

// A kernel prepared for one descriptor: immutable, shared by threads, released with its last owner.
class PreparedKernel {
 public:
  // The best scoring kernel for (op, desc) on `device`. On a host device, "auto" included, the reference backend is the
  // fallback: said once per object in the log, or forbidden by option fallback=error; asked for by name it is none.
  // Fails UNIMPLEMENTED with a cause per kernel asked.
  static PreparedKernel prepare(DevicePtr device, const char *op, const void *desc);
  PreparedKernel(PreparedKernel &&) noexcept;
  PreparedKernel &operator=(PreparedKernel &&) noexcept;
  ~PreparedKernel();

  uint64_t workspace_size(const void *args) const;

  // Call it in the default floating-point environment, as entry points are. `exec` NULL: workspace from the thread's cache, host devices only;
  // else its workspace is checked: FAILED_PRECONDITION states the bytes needed. Fails with the kernel's own error.
  void run(const void *args, const chorus_exec *exec) const;

  const char *kernel_name() const;    // "cpu/route_topk_avx512"
  uint64_t prepared_bytes() const;
  const DevicePtr &device() const { return device_; }

 private:
  PreparedKernel(DevicePtr device, const chorus_kernel *kernel, void *prepared);
  DevicePtr device_;
  const chorus_kernel *kernel_ = nullptr;
  void *prepared_ = nullptr;
  std::string name_;
};

}  // namespace chorus
