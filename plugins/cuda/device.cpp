// SPDX-License-Identifier: Apache-2.0
// Memory, streams and events of a CUDA device, and its faults. Every call makes the device's primary context current and
// gives the caller's back. Streams are cudaStream_t, events cudaEvent_t (made without timing).
#include <cstdio>

#include "cuda/backend.h"

namespace chorus::cuda {
namespace {

// Faults of the device's context: every later call fails with them until the process ends.
bool is_sticky(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorLaunchFailure:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContextIsDestroyed:
      return true;
    default: return false;
  }
}

chorus_status status_of(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation: return CHORUS_RESOURCE_EXHAUSTED;
    case cudaErrorInvalidValue:
    case cudaErrorInvalidResourceHandle: return CHORUS_INVALID_ARGUMENT;
    default: return is_sticky(error) ? CHORUS_UNAVAILABLE : CHORUS_INTERNAL;
  }
}

chorus_status allocate(chorus_plugin_device *device, uint64_t bytes, void **out, chorus_error_slot slot) {
  const Current current(device);
  *out = nullptr;
  const cudaError_t error = cudaMalloc(out, bytes == 0 ? 1 : bytes);
  if (error != cudaErrorMemoryAllocation) return outcome(device, slot, error, "cudaMalloc");
  size_t free_bytes = 0, total = 0;
  cudaGetLastError();
  cudaMemGetInfo(&free_bytes, &total);
  return report(device->host, slot, CHORUS_RESOURCE_EXHAUSTED, "no memory for %llu bytes on cuda:%d; %zu of %zu bytes are free",
                static_cast<unsigned long long>(bytes), device->ordinal, free_bytes, total);
}

void free_memory(chorus_plugin_device *device, void *memory) {
  if (memory == nullptr) return;
  const Current current(device);
  outcome(device, nullptr, cudaFree(memory), "cudaFree");
}

chorus_status host_allocate(chorus_plugin_device *device, uint64_t bytes, void **out, chorus_error_slot slot) {
  const Current current(device);
  *out = nullptr;
  return outcome(device, slot, cudaMallocHost(out, bytes == 0 ? 1 : bytes), "cudaMallocHost");
}

void host_free(chorus_plugin_device *device, void *memory) {
  if (memory == nullptr) return;
  const Current current(device);
  outcome(device, nullptr, cudaFreeHost(memory), "cudaFreeHost");
}

// Without a stream: on the legacy default stream, after what blocking streams hold, and waited for.
chorus_status copy(chorus_plugin_device *device, void *to, const void *from, uint64_t bytes, chorus_native_handle stream,
                   chorus_error_slot slot) {
  const chorus_status known = known_fault(device, slot);
  if (known != CHORUS_OK || bytes == 0) return known;
  const Current current(device);
  const auto on = static_cast<cudaStream_t>(stream);
  cudaError_t error = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, on);
  if (error == cudaSuccess && stream == nullptr) error = cudaStreamSynchronize(on);
  return outcome(device, slot, error, "copying");
}

chorus_status stream_create(chorus_plugin_device *device, chorus_native_handle *out, chorus_error_slot slot) {
  const Current current(device);
  cudaStream_t stream = nullptr;
  const cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  *out = stream;
  return outcome(device, slot, error, "cudaStreamCreate");
}

void stream_destroy(chorus_plugin_device *device, chorus_native_handle stream) {
  if (stream == nullptr) return;
  const Current current(device);
  outcome(device, nullptr, cudaStreamDestroy(static_cast<cudaStream_t>(stream)), "cudaStreamDestroy");
}

chorus_status stream_wait(chorus_plugin_device *device, chorus_native_handle stream, chorus_error_slot slot) {
  const Current current(device);
  return outcome(device, slot, cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), "waiting for a stream");
}

chorus_status event_create(chorus_plugin_device *device, chorus_native_handle *out, chorus_error_slot slot) {
  const Current current(device);
  cudaEvent_t event = nullptr;
  const cudaError_t error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  *out = event;
  return outcome(device, slot, error, "cudaEventCreate");
}

void event_destroy(chorus_plugin_device *device, chorus_native_handle event) {
  if (event == nullptr) return;
  const Current current(device);
  outcome(device, nullptr, cudaEventDestroy(static_cast<cudaEvent_t>(event)), "cudaEventDestroy");
}

chorus_status event_record(chorus_plugin_device *device, chorus_native_handle event, chorus_native_handle stream,
                           chorus_error_slot slot) {
  const Current current(device);
  const cudaError_t error = cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<cudaStream_t>(stream));
  return outcome(device, slot, error, "recording an event");
}

chorus_status event_wait(chorus_plugin_device *device, chorus_native_handle event, chorus_native_handle stream,
                         chorus_error_slot slot) {
  const Current current(device);
  const auto on = static_cast<cudaEvent_t>(event);
  const cudaError_t error =
      stream == nullptr ? cudaEventSynchronize(on) : cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), on, 0);
  return outcome(device, slot, error, "waiting for an event");
}

chorus_status describe_fault(chorus_plugin_device *device, chorus_error_slot slot, cudaError_t error) {
  char names[128] = "none";
  size_t used = 0;
  const uint32_t enqueued = device->enqueued;
  for (uint32_t i = 0; i < kRecentKernels && i < enqueued; ++i) {
    const char *name = device->recent[(enqueued - 1 - i) % kRecentKernels];
    const int length = std::snprintf(names + used, sizeof names - used, "%s%s", i == 0 ? "" : ", ", name != nullptr ? name : "?");
    used += static_cast<size_t>(length);
    if (used >= sizeof names) break;
  }
  return report(device->host, slot, CHORUS_UNAVAILABLE,
                "cuda:%d faulted (%s); last enqueued, newest first: %s; option cuda.sync=true names the one", device->ordinal,
                cudaGetErrorString(error), names);
}

}  // namespace

chorus_status fail(chorus_plugin_device *device, chorus_error_slot slot, cudaError_t error, const char *what) {
  cudaGetLastError();  // ours alone: the runtime is linked in, so the host's own record is not touched
  if (!is_sticky(error))
    return report(device->host, slot, status_of(error), "%s failed on cuda:%d: %s", what, device->ordinal, cudaGetErrorString(error));
  int none = cudaSuccess;
  device->fault.compare_exchange_strong(none, error);
  if (device->sync)
    return report(device->host, slot, CHORUS_UNAVAILABLE, "cuda:%d faulted in %s (%s)", device->ordinal, what, cudaGetErrorString(error));
  return describe_fault(device, slot, error);
}

chorus_status known_fault(chorus_plugin_device *device, chorus_error_slot slot) {
  const int fault = device->fault;
  return fault == cudaSuccess ? CHORUS_OK : describe_fault(device, slot, static_cast<cudaError_t>(fault));
}

// Legal while any stream of the thread is being captured.
chorus_status check_device(chorus_plugin_device *device, chorus_error_slot slot) {
  const chorus_status known = known_fault(device, slot);
  if (known != CHORUS_OK) return known;
  const Current current(device);
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  cudaThreadExchangeStreamCaptureMode(&mode);
  const cudaError_t error = cudaStreamQuery(device->probe);
  cudaThreadExchangeStreamCaptureMode(&mode);
  return error == cudaErrorNotReady ? CHORUS_OK : outcome(device, slot, error, "asking the device");
}

const chorus_device_memory kMemory = {CHORUS_END_OF(chorus_device_memory, event_wait),
                                      allocate,
                                      free_memory,
                                      host_allocate,
                                      host_free,
                                      copy,
                                      stream_create,
                                      stream_destroy,
                                      stream_wait,
                                      event_create,
                                      event_destroy,
                                      event_record,
                                      event_wait};

}  // namespace chorus::cuda
