// SPDX-License-Identifier: Apache-2.0
// context.h: checks arguments and calls runtime/context and runtime/device.
#include "runtime/context.h"

#include <cstring>

#include "abi/boundary.h"
#include "abi/info.h"
#include "runtime/device.h"

using chorus::fail;
using chorus::abi::guarded;
using chorus::abi::require;
using chorus::abi::require_output;

struct chorus_context_spec {
  chorus::ContextSettings settings;
};

namespace {

chorus::DevicePtr device_of(const chorus_context *context, const char *device) {
  return chorus::find_device(chorus::context_of(context), require(device, "device"));
}

}  // namespace

extern "C" {

chorus_status chorus_context_spec_create(chorus_context_spec **out_spec, chorus_error **error) {
  return guarded(error, [&] {
    require_output(out_spec, "out_spec");
    *out_spec = new chorus_context_spec;
  });
}

void chorus_context_spec_destroy(chorus_context_spec *spec) { delete spec; }

chorus_status chorus_context_spec_set_option(chorus_context_spec *spec, const char *name, const char *value,
                                             chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    const std::string key = require(name, "name"), text = require(value, "value");
    if (key.find('.') == std::string::npos) {
      chorus::Options core;
      core.add(chorus::core_options());
      core.set(key, text);
    }
    spec->settings.options.emplace_back(key, text);
  });
}

chorus_status chorus_context_spec_set_log(chorus_context_spec *spec, chorus_log_fn log, void *user,
                                          chorus_log_level level, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    if (level < CHORUS_LOG_DEBUG || level > CHORUS_LOG_ERROR) {
      fail(CHORUS_INVALID_ARGUMENT, "level is {}; CHORUS_LOG_DEBUG (0) to CHORUS_LOG_ERROR (3) are known", level);
    }
    spec->settings.log = log;
    spec->settings.log_user = user;
    spec->settings.log_level = level;
  });
}

chorus_status chorus_context_spec_set_parallel_for(chorus_context_spec *spec, chorus_parallel_for_fn parallel_for,
                                                   void *user, int32_t threads, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    require(parallel_for, "parallel_for");
    if (threads < 1) fail(CHORUS_INVALID_ARGUMENT, "threads is {}; at least 1 is needed", threads);
    spec->settings.host_pool = {parallel_for, user, threads};
  });
}

chorus_status chorus_context_spec_add_plugin(chorus_context_spec *spec, const char *path, chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->settings.plugins.emplace_back(require(path, "path")); });
}

chorus_status chorus_context_create(const chorus_context_spec *spec, chorus_context **out_context, chorus_error **error) {
  return guarded(error, [&] {
    require_output(out_context, "out_context");
    const chorus::ContextSettings settings = spec != nullptr ? spec->settings : chorus::ContextSettings();
    *out_context = new chorus_context{chorus::Context::create(settings)};
  });
}

void chorus_context_destroy(chorus_context *context) { delete context; }

size_t chorus_context_get_plugin_count(const chorus_context *context) {
  return context != nullptr ? context->shared->plugins().size() : 0;
}

chorus_status chorus_context_get_plugin(const chorus_context *context, size_t index, chorus_plugin_info *out_info,
                                        chorus_error **error) {
  return guarded(error, [&] {
    const auto &plugins = chorus::context_of(context)->plugins();
    const auto &record = chorus::abi::at(plugins, index, "index");
    chorus::abi::fill_info(out_info, chorus_plugin_info{0, record.path.c_str(), record.name.c_str(),
                                                        record.version.c_str(), record.status, record.device_count,
                                                        record.reason.c_str()});
  });
}

size_t chorus_context_get_device_count(const chorus_context *context) {
  return context != nullptr ? context->shared->backends().size() : 0;
}

chorus_status chorus_context_get_device(const chorus_context *context, size_t index, chorus_device_info *out_info,
                                        chorus_error **error) {
  return guarded(error, [&] {
    chorus::Backend &backend = *chorus::abi::at(chorus::context_of(context)->backends(), index, "index");
    chorus_device_info info = {0, backend.name.c_str(), backend.plugin->name, backend.description.c_str(),
                               backend.device_type, backend.device_id, -1, 0, ""};
    info.reason = backend.open_or_reason();
    if (info.reason[0] == '\0') info.kernel_count = static_cast<int32_t>(backend.kernels().size());
    chorus::abi::fill_info(out_info, info);
  });
}

size_t chorus_context_get_option_count(const chorus_context *context) {
  return context != nullptr ? context->shared->options().table().size() : 0;
}

chorus_status chorus_context_get_option(const chorus_context *context, size_t index, chorus_option_info *out_info,
                                        chorus_error **error) {
  return guarded(error, [&] {
    const chorus::Options &options = chorus::context_of(context)->options();
    const chorus::Option &option = chorus::abi::at(options.table(), index, "index");
    chorus::abi::fill_info(out_info,
                           chorus_option_info{0, option.name.c_str(), chorus::option_type_name(option.type),
                                              option.default_value.c_str(), options.get(option.name).c_str(),
                                              option.range.c_str(), option.doc.c_str()});
  });
}

chorus_status chorus_device_check(const chorus_context *context, const char *device, chorus_error **error) {
  return guarded(error, [&] { chorus::device_check(*device_of(context, device)); });
}

chorus_status chorus_memory_allocate(const chorus_context *context, const char *device, uint64_t bytes, void **out_memory,
                                     chorus_error **error) {
  return guarded(error, [&] {
    require_output(out_memory, "out_memory");
    *out_memory = chorus::device_allocate(*device_of(context, device), bytes);
  });
}

void chorus_memory_free(const chorus_context *context, const char *device, void *memory, uint64_t) {
  guarded(nullptr, [&] { chorus::device_free(*device_of(context, device), memory); });
}

chorus_status chorus_memory_copy(const chorus_context *context, const char *device, void *to, const void *from,
                                 uint64_t bytes, chorus_error **error) {
  return guarded(error, [&] {
    const chorus::DevicePtr where = device_of(context, device);
    if (bytes == 0) return;
    chorus::device_copy(*where, require(to, "to"), require(from, "from"), bytes);
  });
}

}  // extern "C"
