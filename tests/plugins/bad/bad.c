/* SPDX-License-Identifier: Apache-2.0
 *
 * A plugin that breaks one rule, chosen by a -DBAD_… switch. Without one it would be a good plugin with one device
 * and no kernel.
 */
#include "chorus/plugin.h"

#ifdef BAD_UNRESOLVED
void chorus_test_symbol_that_nobody_defines(void);
#endif

static const chorus_device_desc *const *list_devices(const chorus_host *host, uint64_t *count, char *why,
                                                     size_t why_bytes) {
#ifdef BAD_NO_MEMORY_TABLE
  static const chorus_device_desc desc = {CHORUS_END_OF(chorus_device_desc, device_id), BAD_KIND, "",
                                          CHORUS_DEVICE_EXTENSION, 0};
#elif defined(BAD_RESERVED_DEVICE)
  static const chorus_device_desc desc = {CHORUS_END_OF(chorus_device_desc, device_id), "auto", "", CHORUS_DEVICE_HOST,
                                          0};
#else
  static const chorus_device_desc desc = {CHORUS_END_OF(chorus_device_desc, device_id), BAD_KIND, "",
                                          CHORUS_DEVICE_HOST, 0};
#endif
  static const chorus_device_desc *const devices[] = {&desc};
  (void)host;
  (void)why;
  (void)why_bytes;
#ifdef BAD_UNRESOLVED
  chorus_test_symbol_that_nobody_defines();
#endif
#ifdef BAD_NO_DEVICE
  *count = 0;
#else
  *count = 1;
#endif
  return devices;
}

static chorus_status open_device(const chorus_host *host, uint64_t index, chorus_plugin_device **out,
                                 chorus_error_slot slot) {
  static int device;
  (void)index;
  (void)host;
  (void)slot;
#if defined(BAD_OPEN_FAILS)
  {
    static const char message[] = "the card is on fire";
    return host->set_error(slot, CHORUS_UNAVAILABLE, message, sizeof(message) - 1);
  }
#elif defined(BAD_OPEN_FAILS_SILENTLY)
  return CHORUS_RESOURCE_EXHAUSTED;
#elif defined(BAD_OPEN_GIVES_NOTHING)
  return CHORUS_OK;
#endif
  *out = (chorus_plugin_device *)&device;
  return CHORUS_OK;
}

static void close_device(chorus_plugin_device *device) {
  (void)device;
}

static const chorus_kernel *const *get_kernels(chorus_plugin_device *device, uint64_t *count) {
  static const chorus_kernel hollow = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                       "test.hollow",
                                       1,
                                       0,
                                       "hollow",
                                       NULL,
                                       NULL,
                                       NULL,
                                       NULL,
                                       NULL,
                                       NULL};
  static const chorus_kernel *const kernels[] = {&hollow};
  (void)device;
#ifdef BAD_MISSING_KERNEL_SLOT
  *count = 1;
#else
  *count = 0;
#endif
  return kernels;
}

#ifdef BAD_STRANGER_OPTION
static const chorus_plugin_option option = {CHORUS_END_OF(chorus_plugin_option, maximum),
                                            "threads",
                                            "1",
                                            "1 to 2",
                                            "Would shadow an option of the host.",
                                            CHORUS_OPTION_INTEGER,
                                            0,
                                            1,
                                            2};
static const chorus_plugin_option *const options[] = {&option};
#define OPTIONS options
#define OPTION_COUNT 1
#else
#define OPTIONS NULL
#define OPTION_COUNT 0
#endif

/* Every header field with what a switch makes of it. */
#ifdef BAD_WRONG_MAGIC
#define MAGIC UINT64_C(0x4e4f4e53454e5345)
#else
#define MAGIC CHORUS_PLUGIN_MAGIC
#endif
#ifdef BAD_OTHER_ABI
#define ABI_MAJOR (CHORUS_PLUGIN_ABI_MAJOR + 1)
#else
#define ABI_MAJOR CHORUS_PLUGIN_ABI_MAJOR
#endif
#ifdef BAD_SHORT_SIZE
#define SIZE CHORUS_END_OF(chorus_plugin, open_device)
#else
#define SIZE CHORUS_END_OF(chorus_plugin, check_device)
#endif
#ifdef BAD_OTHER_HASH
#define HASH (CHORUS_PLUGIN_LAYOUT_HASH ^ 1)
#else
#define HASH CHORUS_PLUGIN_LAYOUT_HASH
#endif
#ifdef BAD_BAD_NAME
#define NAME "Bad Name"
#else
#define NAME BAD_KIND
#endif
#ifdef BAD_OTHER_SANITIZER
#define SANITIZER (CHORUS_SANITIZER_THIS_BUILD == CHORUS_SANITIZER_MEMORY ? 0u : CHORUS_SANITIZER_MEMORY)
#else
#define SANITIZER CHORUS_SANITIZER_THIS_BUILD
#endif
#ifdef BAD_MISSING_SLOT
#define CLOSE_DEVICE NULL
#else
#define CLOSE_DEVICE close_device
#endif

extern const chorus_plugin chorus_bad_plugin; /* used or not, by switch */
const chorus_plugin chorus_bad_plugin = {MAGIC,   ABI_MAJOR,    CHORUS_PLUGIN_ABI_MINOR, SIZE,        HASH,        NAME,
                                         "0",     SANITIZER,    0,                       0,           {0},         OPTIONS,
                                         OPTION_COUNT, list_devices, open_device,        CLOSE_DEVICE, get_kernels, NULL,
                                         NULL};

extern void (*const chorus_bad_keep)(chorus_plugin_device *);
void (*const chorus_bad_keep)(chorus_plugin_device *) = close_device;

#ifndef BAD_EXPORTS_NOTHING
__attribute__((visibility("default"))) const chorus_plugin *chorus_plugin_query(const chorus_plugin_query_args *args);

const chorus_plugin *chorus_plugin_query(const chorus_plugin_query_args *args) {
  (void)args;
#ifdef BAD_NULL_QUERY
  return NULL;
#else
  return &chorus_bad_plugin;
#endif
}
#endif
