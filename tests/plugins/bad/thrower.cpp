// SPDX-License-Identifier: Apache-2.0
// A C++ plugin that lets exceptions out: of its query, or of its list of devices.
#include <stdexcept>

#include "chorus/plugin.h"

namespace {

const chorus_device_desc *const *list_devices(const chorus_host *, uint64_t *, char *, size_t) {
  throw std::runtime_error("no devices, an exception instead");
}

chorus_status open_device(const chorus_host *, uint64_t, chorus_plugin_device **, chorus_error_slot) { return CHORUS_OK; }
void close_device(chorus_plugin_device *) {}
const chorus_kernel *const *get_kernels(chorus_plugin_device *, uint64_t *) { return nullptr; }

const chorus_plugin kPlugin = {CHORUS_PLUGIN_MAGIC,
                               CHORUS_PLUGIN_ABI_MAJOR,
                               CHORUS_PLUGIN_ABI_MINOR,
                               CHORUS_END_OF(chorus_plugin, check_device),
                               CHORUS_PLUGIN_LAYOUT_HASH,
                               "thrower",
                               "0",
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

extern "C" __attribute__((visibility("default"))) const chorus_plugin *chorus_plugin_query(
    const chorus_plugin_query_args *) {
#ifdef THROW_IN_QUERY
  throw std::runtime_error("no table, an exception instead");
#else
  return &kPlugin;
#endif
}
