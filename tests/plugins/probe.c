/* SPDX-License-Identifier: Apache-2.0
 *
 * A well-behaved plugin whose one kernel does what a test asks (probe.h): wants workspace, fails with or without words,
 * uses the pool. Device "probe", in host memory, with an option of each type.
 */
#include "probe.h"

#include <string.h>

struct chorus_plugin_device {
  const chorus_host *host;
};

static chorus_status say(const chorus_host *host, chorus_error_slot slot, chorus_status status, const char *message) {
  return message != NULL ? host->set_error(slot, status, message, strlen(message)) : status;
}

static int32_t score(chorus_plugin_device *device, const void *desc, char *why, size_t why_bytes) {
  const probe_desc *d = (const probe_desc *)desc;
  (void)device;
  if (d->score == 0) strncpy(why, "score is 0; supported: above 0", why_bytes - 1);
  return d->score;
}

/* The prepared state is the device itself: all the run needs is the host. */
static chorus_status prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  (void)slot;
  *out = device;
  return ((const probe_desc *)desc)->prepare_status;
}

static uint64_t workspace_size(const void *prepared, const void *args) {
  (void)prepared;
  return ((const probe_args *)args)->workspace;
}

static chorus_status run(const void *prepared, const void *args, const chorus_exec *exec, chorus_error_slot slot) {
  const chorus_host *host = ((const chorus_plugin_device *)prepared)->host;
  probe_args *a = (probe_args *)args;
  a->seen = *exec;
  a->level = host->get_option(host->self, "probe.level");
  a->threads = host->thread_count(host->self);
  if (a->workspace > 0) memset(exec->workspace, 0x5a, (size_t)a->workspace);
  if (a->pieces > 0) host->parallel_for(host->self, a->pieces, a->task, a->argument);
  if (a->within != NULL) a->within(a->argument);
  return a->status == CHORUS_OK ? CHORUS_OK : say(host, slot, a->status, a->message);
}

static void release(void *prepared) {
  (void)prepared;
}

static const chorus_kernel kernel = {
    CHORUS_END_OF(chorus_kernel, prepared_bytes), PROBE_OP, 1, 0, "probe", score, prepare, workspace_size, run, release,
    NULL};

static const chorus_device_desc *const *list_devices(const chorus_host *host, uint64_t *count, char *why,
                                                     size_t why_bytes) {
  static const chorus_device_desc desc = {CHORUS_END_OF(chorus_device_desc, device_id), "probe", "does as told",
                                          CHORUS_DEVICE_HOST, 0};
  static const chorus_device_desc *const devices[] = {&desc};
  (void)host;
  (void)why;
  (void)why_bytes;
  *count = 1;
  return devices;
}

static chorus_status open_device(const chorus_host *host, uint64_t index, chorus_plugin_device **out,
                                 chorus_error_slot slot) {
  (void)index;
  *out = (chorus_plugin_device *)host->allocate(host->self, sizeof(**out), sizeof(void *));
  if (*out == NULL) return say(host, slot, CHORUS_RESOURCE_EXHAUSTED, "no memory for the probe device");
  (*out)->host = host;
  return CHORUS_OK;
}

static void close_device(chorus_plugin_device *device) {
  const chorus_host *host = device->host;
  host->deallocate(host->self, device, sizeof(*device), sizeof(void *));
}

static const chorus_kernel *const *get_kernels(chorus_plugin_device *device, uint64_t *count) {
  static const chorus_kernel *const kernels[] = {&kernel};
  (void)device;
  *count = 1;
  return kernels;
}

#define OPTION_SIZE CHORUS_END_OF(chorus_plugin_option, maximum)
static const chorus_plugin_option level = {
    OPTION_SIZE, "probe.level", "low", "low|high", "A string of a list.", CHORUS_OPTION_STRING, 0, 0, 0};
static const chorus_plugin_option count = {
    OPTION_SIZE, "probe.count", "3", "1 to 9", "An integer.", CHORUS_OPTION_INTEGER, 0, 1, 9};
static const chorus_plugin_option ratio = {
    OPTION_SIZE, "probe.ratio", "0.5", "0 to 1", "A number.", CHORUS_OPTION_NUMBER, 0, 0, 1};
static const chorus_plugin_option flag = {
    OPTION_SIZE, "probe.flag", "false", "true or false", "A boolean.", CHORUS_OPTION_BOOLEAN, 0, 0, 0};
static const chorus_plugin_option *const options[] = {&level, &count, &ratio, &flag};

static const chorus_plugin plugin = {CHORUS_PLUGIN_MAGIC,
                                     CHORUS_PLUGIN_ABI_MAJOR,
                                     CHORUS_PLUGIN_ABI_MINOR,
                                     CHORUS_END_OF(chorus_plugin, check_device),
                                     CHORUS_PLUGIN_LAYOUT_HASH,
                                     "probe",
                                     "1.2.3",
                                     CHORUS_SANITIZER_THIS_BUILD,
                                     0,
                                     0,
                                     {0},
                                     options,
                                     4,
                                     list_devices,
                                     open_device,
                                     close_device,
                                     get_kernels,
                                     NULL,
                                     NULL};

__attribute__((visibility("default"))) const chorus_plugin *chorus_plugin_query(const chorus_plugin_query_args *args);

const chorus_plugin *chorus_plugin_query(const chorus_plugin_query_args *args) {
  (void)args;
  return &plugin;
}
