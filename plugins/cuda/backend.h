// SPDX-License-Identifier: Apache-2.0
// What the files of the cuda backend share: the open device, the guard that makes it current, and how work is enqueued
// and its faults are told. Nothing here waits for the device, except under the option cuda.sync.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <atomic>

#include "chorus/plugin.hpp"

// Functions of the driver, which is found at run time: the plugin loads where there is none.
struct DriverFunctions {
  CUresult (*push)(CUcontext);
  CUresult (*pop)(CUcontext *);
  CUresult (*retain)(CUcontext *, CUdevice);
  CUresult (*release)(CUdevice);
};

inline constexpr int kRecentKernels = 4;

struct chorus_plugin_device {
  const chorus_host *host;
  int ordinal;
  DriverFunctions driver;
  CUcontext context;  // the primary one, which PyTorch and the CUDA runtime use too
  cudaStream_t probe; // nothing runs on it: asking it tells whether the context is broken
  bool sync;          // option cuda.sync
  int processors, capability, shared_bytes;
  // The kernels enqueued last, for the text of an asynchronous fault; and that fault, once seen.
  std::atomic<const char *> recent[kRecentKernels];
  std::atomic<uint32_t> enqueued;
  std::atomic<int> fault;
};

namespace chorus::cuda {

using namespace chorus::plugin;

// Offered by plugin.cpp; one per operation, defined in the file of its name.
extern const chorus_kernel kCombineRows;
extern const chorus_kernel kRouteTopk;
extern const chorus_kernel kExpertsFfn;
extern const chorus_kernel kMergeReduce;
extern const chorus_kernel kMergeApply;

extern const chorus_device_memory kMemory;

// Above the reference's 1, and room for a second kernel of the same operation that is better at some descriptors.
inline constexpr int32_t kScore = 100;

inline uint64_t aligned_on_device(uint64_t bytes) {
  return (bytes + CHORUS_WORKSPACE_ALIGNMENT_DEVICE - 1) / CHORUS_WORKSPACE_ALIGNMENT_DEVICE * CHORUS_WORKSPACE_ALIGNMENT_DEVICE;
}

// Makes the device's primary context current, and the caller's again at the end.
class Current {
 public:
  explicit Current(const chorus_plugin_device *device) : device_(device) { device->driver.push(device->context); }
  ~Current() {
    CUcontext popped;
    device_->driver.pop(&popped);
  }
  Current(const Current &) = delete;
  Current &operator=(const Current &) = delete;

 private:
  const chorus_plugin_device *device_;
};

// The status of a failed CUDA call, described; an asynchronous fault is kept as the device's.
chorus_status fail(chorus_plugin_device *device, chorus_error_slot slot, cudaError_t error, const char *what);

inline chorus_status outcome(chorus_plugin_device *device, chorus_error_slot slot, cudaError_t error, const char *what) {
  return error == cudaSuccess ? CHORUS_OK : fail(device, slot, error, what);
}

// The device's fault, if one was seen; asks nothing of the device.
chorus_status known_fault(chorus_plugin_device *device, chorus_error_slot slot);

chorus_status check_device(chorus_plugin_device *device, chorus_error_slot slot);

// Calls `launch` (which gives a cudaError_t) with the device current; `name` is remembered as enqueued.
template <typename Launch>
chorus_status enqueue(chorus_plugin_device *device, const chorus_exec *exec, const char *name, chorus_error_slot slot,
                      const Launch &launch) {
  const chorus_status known = known_fault(device, slot);
  if (known != CHORUS_OK) return known;
  const Current current(device);
  device->recent[device->enqueued.fetch_add(1) % kRecentKernels] = name;
  cudaError_t error = launch();
  if (error == cudaSuccess && device->sync) {
    const auto stream = static_cast<cudaStream_t>(exec->stream);
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    error = cudaStreamIsCapturing(stream, &capture);
    if (error == cudaSuccess && capture == cudaStreamCaptureStatusNone) error = cudaStreamSynchronize(stream);
  }
  return outcome(device, slot, error, name);
}

}  // namespace chorus::cuda
