// SPDX-License-Identifier: Apache-2.0
// The built-in backend's face: one device in host memory, its kernels, through the same table as any plugin.
#include <iterator>

#include "reference/backend.h"

namespace chorus::reference {
namespace {

const chorus_device_desc kDevice = {CHORUS_END_OF(chorus_device_desc, device_id), "reference",
                                    "portable scalar code, deterministic", CHORUS_DEVICE_HOST, 0};
const chorus_device_desc *const kDevices[] = {&kDevice};

const chorus_kernel *const kKernels[] = {&kCombineRows, &kCombineDistill, &kRouteTopk,
                                         &kMergeReduce, &kMergeApply,     &kExpertsFfn,
                                         &kSparseGemv,  &kSparseFfn};

const chorus_device_desc *const *list_devices(const chorus_host *, uint64_t *out_count, char *, size_t) {
  *out_count = std::size(kDevices);
  return kDevices;
}

chorus_status open_device(const chorus_host *host, uint64_t index, chorus_plugin_device **out_device,
                          chorus_error_slot slot) {
  if (index >= std::size(kDevices))
    return report(host, slot, CHORUS_NOT_FOUND, "device index is %llu; the reference backend has 1 device",
                  static_cast<unsigned long long>(index));
  void *memory = host->allocate(host->self, sizeof(chorus_plugin_device), kAlignment);
  if (memory == nullptr)
    return report(host, slot, CHORUS_RESOURCE_EXHAUSTED, "no memory to open device \"reference\"");
  *out_device = new (memory) chorus_plugin_device{host};
  return CHORUS_OK;
}

void close_device(chorus_plugin_device *device) {
  if (device == nullptr) return;
  const chorus_host *host = device->host;
  host->deallocate(host->self, device, sizeof(chorus_plugin_device), kAlignment);
}

const chorus_kernel *const *get_kernels(chorus_plugin_device *, uint64_t *out_count) {
  *out_count = std::size(kKernels);
  return kKernels;
}

const chorus_plugin kPlugin = {CHORUS_PLUGIN_MAGIC,
                               CHORUS_PLUGIN_ABI_MAJOR,
                               CHORUS_PLUGIN_ABI_MINOR,
                               CHORUS_END_OF(chorus_plugin, check_device),
                               CHORUS_PLUGIN_LAYOUT_HASH,
                               "reference",
                               "0.1.0",
                               CHORUS_SANITIZER_THIS_BUILD,
                               0,
                               0,
                               {},
                               nullptr,
                               0,
                               list_devices,
                               open_device,
                               close_device,
                               get_kernels,
                               nullptr,
                               nullptr};

}  // namespace
}  // namespace chorus::reference

extern "C" __attribute__((visibility("default"))) const chorus_plugin *chorus_reference_plugin(void) {
  return &chorus::reference::kPlugin;
}
