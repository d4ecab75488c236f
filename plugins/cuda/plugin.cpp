// SPDX-License-Identifier: Apache-2.0
// The face of the cuda backend: one device per GPU of compute capability 8.0 and above, its option, its kernels. Without
// a driver or a GPU it offers no device and says why.
#include <cstring>
#include <iterator>
#include <mutex>
#include <new>

#include "cuda/backend.h"

namespace chorus::cuda {
namespace {

const chorus_plugin_option kSync = {CHORUS_END_OF(chorus_plugin_option, maximum),
                                    "cuda.sync",
                                    "false",
                                    "true or false",
                                    "Wait after each kernel, so that a fault names the one that made it. Slow; not within a capture.",
                                    CHORUS_OPTION_BOOLEAN,
                                    0,
                                    0,
                                    0};
const chorus_plugin_option *const kOptions[] = {&kSync};

// Kernels, one line each.
const chorus_kernel *const kKernels[] = {
    &kCombineRows,
    &kRouteTopk,
    &kExpertsFfn,
    &kMergeReduce,
    &kMergeApply,
};

// ---- Devices: found once per process ----

constexpr int kMostDevices = 64;
constexpr int kLeastCapability = 80;

struct Device {
  int ordinal, capability;
  char name[16], description[320];
  chorus_device_desc desc;
};

struct Devices {
  int count = 0;
  Device all[kMostDevices];
  const chorus_device_desc *list[kMostDevices];
  char why[160] = "";

  Devices() {
    int found = 0;
    const cudaError_t error = cudaGetDeviceCount(&found);
    if (error == cudaErrorInsufficientDriver) {
      explain_driver();
    } else if (error == cudaErrorNoDevice || (error == cudaSuccess && found == 0)) {
      std::snprintf(why, sizeof why, "the CUDA driver finds no GPU");
    } else if (error != cudaSuccess) {
      std::snprintf(why, sizeof why, "the CUDA driver does not start: %s", cudaGetErrorString(error));
    }
    cudaGetLastError();
    for (int i = 0; error == cudaSuccess && i < found && count < kMostDevices; ++i) add(i);
  }

 private:
  void explain_driver() {
    int version = 0;
    cudaDriverGetVersion(&version);
    if (version == 0) {
      std::snprintf(why, sizeof why, "no CUDA driver");
    } else {
      std::snprintf(why, sizeof why, "the CUDA driver is of version %d.%d; needed: %d.%d or newer", version / 1000,
                    version % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    }
  }

  void add(int ordinal) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, ordinal) != cudaSuccess) return;
    const int capability = properties.major * 10 + properties.minor;
    if (capability < kLeastCapability) {
      std::snprintf(why, sizeof why, "cuda:%d (%.64s) has compute capability %d.%d; needed: 8.0", ordinal, properties.name,
                    properties.major, properties.minor);
      return;
    }
    Device &d = all[count];
    d.ordinal = ordinal;
    d.capability = capability;
    std::snprintf(d.name, sizeof d.name, "cuda:%d", ordinal);
    std::snprintf(d.description, sizeof d.description, "%.255s, compute capability %d.%d, %zu GiB", properties.name,
                  properties.major, properties.minor, properties.totalGlobalMem >> 30);
    d.desc = {CHORUS_END_OF(chorus_device_desc, device_id), d.name, d.description, CHORUS_DEVICE_CUDA, ordinal};
    list[count++] = &d.desc;
  }
};

const Devices &devices() {
  static const Devices all;
  return all;
}

const chorus_device_desc *const *list_devices(const chorus_host *, uint64_t *out_count, char *why, size_t why_bytes) {
  const Devices &all = devices();
  *out_count = static_cast<uint64_t>(all.count);
  if (all.count == 0 && why != nullptr && why_bytes > 0) std::snprintf(why, why_bytes, "%s", all.why);
  return all.count > 0 ? all.list : nullptr;
}

template <typename Function>
cudaError_t find(const char *name, Function *out) {
  void *found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t error = cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &result);
  *out = reinterpret_cast<Function>(found);
  if (error != cudaSuccess) return error;
  return result == cudaDriverEntryPointSuccess ? cudaSuccess : cudaErrorSymbolNotFound;
}

cudaError_t find_functions(DriverFunctions *out) {
  cudaError_t error = find("cuCtxPushCurrent", &out->push);
  if (error == cudaSuccess) error = find("cuCtxPopCurrent", &out->pop);
  if (error == cudaSuccess) error = find("cuDevicePrimaryCtxRetain", &out->retain);
  if (error == cudaSuccess) error = find("cuDevicePrimaryCtxRelease", &out->release);
  return error;
}

// Reads what kernels need to know, and makes the probe stream.
cudaError_t look_at(chorus_plugin_device *device) {
  const auto attribute = [&](int *out, cudaDeviceAttr which) { return cudaDeviceGetAttribute(out, which, device->ordinal); };
  cudaError_t error = attribute(&device->processors, cudaDevAttrMultiProcessorCount);
  if (error == cudaSuccess) error = attribute(&device->shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&device->probe, cudaStreamNonBlocking);
  return error;
}

void give_back(chorus_plugin_device *device) {
  const chorus_host *host = device->host;
  device->~chorus_plugin_device();
  host->deallocate(host->self, device, sizeof(chorus_plugin_device), kAlignment);
}

chorus_status open_device(const chorus_host *host, uint64_t index, chorus_plugin_device **out_device,
                          chorus_error_slot slot) {
  const Devices &all = devices();
  if (index >= static_cast<uint64_t>(all.count))
    return report(host, slot, CHORUS_NOT_FOUND, "device index is %llu; there are %d CUDA devices%s%s",
                  static_cast<unsigned long long>(index), all.count, all.count == 0 ? ": " : "", all.why);
  void *memory = host->allocate(host->self, sizeof(chorus_plugin_device), kAlignment);
  if (memory == nullptr) return report(host, slot, CHORUS_RESOURCE_EXHAUSTED, "no memory to open a CUDA device");
  auto *device = new (memory) chorus_plugin_device{};
  device->host = host;
  device->ordinal = all.all[index].ordinal;
  device->capability = all.all[index].capability;
  device->sync = std::strcmp(host->get_option(host->self, kSync.name), "true") == 0;
  cudaError_t error = find_functions(&device->driver);
  const bool retained = error == cudaSuccess && device->driver.retain(&device->context, device->ordinal) == CUDA_SUCCESS;
  if (error == cudaSuccess && !retained) error = cudaErrorInitializationError;
  if (retained) {
    const Current current(device);
    error = look_at(device);
  }
  if (error == cudaSuccess) {
    *out_device = device;
    return CHORUS_OK;
  }
  const chorus_status status = report(host, slot, CHORUS_UNAVAILABLE, "opening cuda:%d failed: %s", device->ordinal, cudaGetErrorString(error));
  if (retained) device->driver.release(device->ordinal);
  give_back(device);
  return status;
}

void close_device(chorus_plugin_device *device) {
  if (device == nullptr) return;
  {
    const Current current(device);
    cudaStreamDestroy(device->probe);
  }
  device->driver.release(device->ordinal);
  give_back(device);
}

const chorus_kernel *const *get_kernels(chorus_plugin_device *, uint64_t *out_count) {
  *out_count = std::size(kKernels);
  return kKernels;
}

const chorus_device_memory *get_memory(chorus_plugin_device *) { return &kMemory; }

const chorus_plugin kPlugin = {CHORUS_PLUGIN_MAGIC,
                               CHORUS_PLUGIN_ABI_MAJOR,
                               CHORUS_PLUGIN_ABI_MINOR,
                               CHORUS_END_OF(chorus_plugin, check_device),
                               CHORUS_PLUGIN_LAYOUT_HASH,
                               "cuda",
                               "0.1.0",
                               CHORUS_SANITIZER_THIS_BUILD,
                               0,
                               0,
                               {},
                               kOptions,
                               std::size(kOptions),
                               list_devices,
                               open_device,
                               close_device,
                               get_kernels,
                               get_memory,
                               check_device};

}  // namespace
}  // namespace chorus::cuda

extern "C" __attribute__((visibility("default"))) const chorus_plugin *chorus_plugin_query(
    const chorus_plugin_query_args *);

extern "C" const chorus_plugin *chorus_plugin_query(const chorus_plugin_query_args *) { return &chorus::cuda::kPlugin; }
