// SPDX-License-Identifier: Apache-2.0
// Buffers that end (or begin) at an unmapped page, so that a kernel that strays by one element faults. On
// devices with memory of their own the host copy is staged, and the kernel sees the device's.
#pragma once
#include <cstdint>
#include <memory>

#include "chorus/plugin.h"

namespace conformance {

// The memory of a device; the default is the host's.
struct DeviceMemory {
  const chorus_device_memory *functions = nullptr;  // NULL: host memory
  chorus_plugin_device *device = nullptr;
  int32_t device_type = CHORUS_DEVICE_HOST;
  int32_t device_id = 0;
};

class Buffer {
 public:
  enum class Edge { kEnd, kBegin };
  Buffer(const DeviceMemory &memory, uint64_t bytes, Edge edge = Edge::kEnd);
  ~Buffer();
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;

  char *host() const { return host_; }
  void *device() const { return device_; }
  uint64_t bytes() const { return bytes_; }
  void upload();
  void download();
  // Host memory: makes writing a fault, or allows it again.
  void protect(bool read_only);

 private:
  DeviceMemory memory_;
  uint64_t bytes_, mapped_ = 0;
  char *mapping_ = nullptr;
  char *host_ = nullptr;
  void *device_ = nullptr;
};

}  // namespace conformance
