/* SPDX-License-Identifier: Apache-2.0
 *
 * The context: options, log, thread pool, loaded plugins and their devices. Every object is made from one.
 */
#ifndef CHORUS_CONTEXT_H_
#define CHORUS_CONTEXT_H_

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

struct chorus_plugin;

/** Builder of a context. */
typedef struct chorus_context_spec chorus_context_spec;
/** Options, plugins, devices and pool. Immutable; any thread. */
typedef struct chorus_context chorus_context;

/** Receives log messages: `length` bytes of UTF-8, no newline. Called from any thread, perhaps several at once; must not
 * call back into Chorus and must not throw or longjmp. */
typedef void (*chorus_log_fn)(void *user, chorus_log_level level, const char *message, size_t length);

/** The host's own thread pool: must call `task(argument, i)` once for each i in [0, count) and then return. */
typedef void (*chorus_parallel_for_fn)(void *user, uint64_t count, void (*task)(void *argument, uint64_t index),
                                       void *argument);

/** New spec with default options: no log, all plugins of the search path, an own pool.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: `out_spec` NULL; CHORUS_RESOURCE_EXHAUSTED. @since 0.1 */
CHORUS_API chorus_status chorus_context_spec_create(chorus_context_spec **out_spec, chorus_error **error);
CHORUS_API void chorus_context_spec_destroy(chorus_context_spec *spec);

/** Set option `name` from text, copied. The table (chorus_context_get_option_info) lists names, types, ranges and docs;
 * names of plugins' options start with the plugin's name ("cpu.max_isa") and are checked when the context is created.
 * @return CHORUS_OK; CHORUS_NOT_FOUND: no such option, naming the nearest; CHORUS_INVALID_ARGUMENT: value out of type
 *         or range, stating both. @since 0.1 */
CHORUS_API chorus_status chorus_context_spec_set_option(chorus_context_spec *spec, const char *name, const char *value,
                                                        chorus_error **error);

/** Send log messages of at least `level` to `log` (NULL: nowhere, the default). @since 0.1 */
CHORUS_API chorus_status chorus_context_spec_set_log(chorus_context_spec *spec, chorus_log_fn log, void *user,
                                                     chorus_log_level level, chorus_error **error);

/** Run parallel loops on the host's pool instead of an own one. `threads`: how many it has, >= 1. @since 0.1 */
CHORUS_API chorus_status chorus_context_spec_set_parallel_for(chorus_context_spec *spec, chorus_parallel_for_fn parallel_for,
                                                              void *user, int32_t threads, chorus_error **error);

/** Load the plugin at `path` (a file) first. Ownership and permissions of an explicit path are not checked. Unlike those
 * found by search, an explicit plugin that cannot be loaded fails chorus_context_create(). @since 0.1 */
CHORUS_API chorus_status chorus_context_spec_add_plugin(chorus_context_spec *spec, const char *path, chorus_error **error);

/** Load plugins, list devices, start the pool. `spec` NULL: defaults.
 *
 * Search order: explicit paths, then unless option "plugins" says otherwise the folders of CHORUS_PLUGIN_PATH (colon
 * separated, absolute; ignored in set-uid programs), `chorus-plugins/` beside libchorus, the folder compiled in. Never
 * the working directory. A file or folder that others may write to is refused; what cannot be loaded is skipped, with
 * its reason in chorus_context_get_plugin(). Plugins stay loaded until the process ends.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: a plugin option's value; CHORUS_NOT_FOUND: a plugin option's name;
 *         CHORUS_FAILED_PRECONDITION: explicit plugins not loadable, one cause each; CHORUS_RESOURCE_EXHAUSTED.
 * @since 0.1 */
CHORUS_API chorus_status chorus_context_create(const chorus_context_spec *spec, chorus_context **out_context,
                                               chorus_error **error);
/** Release the caller's hold. Objects made from the context stay usable. @since 0.1 */
CHORUS_API void chorus_context_destroy(chorus_context *context);

/** A plugin that was found, and what became of it. Text lives as long as the context. */
typedef struct chorus_plugin_info {
  size_t struct_size;
  const char *path;    /**< Real path; "" for the built-in backend. */
  const char *name;    /**< "" when it could not be asked. */
  const char *version; /**< "" when it could not be asked. */
  chorus_status status; /**< CHORUS_OK: loaded. Else why not. */
  int32_t device_count; /**< Devices it offers now. */
  const char *reason;   /**< "" when loaded and offering devices; else path and reason, or why there is no device. */
} chorus_plugin_info;

CHORUS_API size_t chorus_context_get_plugin_count(const chorus_context *context);
/** @return CHORUS_OK; CHORUS_OUT_OF_RANGE. `out_info->struct_size` must be set. @since 0.1 */
CHORUS_API chorus_status chorus_context_get_plugin(const chorus_context *context, size_t index, chorus_plugin_info *out_info,
                                                   chorus_error **error);

/** A device name and who serves it. Text lives as long as the context. */
typedef struct chorus_device_info {
  size_t struct_size;
  const char *name;        /**< "reference", "cpu", "cuda:0", … */
  const char *plugin;      /**< Name of the plugin. */
  const char *description; /**< For people. */
  int32_t device_type;     /**< CHORUS_DEVICE_*: the memory its tensors live in. */
  int32_t device_id;
  int32_t kernel_count;    /**< -1: the device could not be opened, see `reason`. */
  int32_t reserved;
  const char *reason;      /**< "" or why it could not be opened. */
} chorus_device_info;

CHORUS_API size_t chorus_context_get_device_count(const chorus_context *context);
/** @return CHORUS_OK; CHORUS_OUT_OF_RANGE. @since 0.1 */
CHORUS_API chorus_status chorus_context_get_device(const chorus_context *context, size_t index, chorus_device_info *out_info,
                                                   chorus_error **error);

/** A row of the option table. Text lives as long as the context. */
typedef struct chorus_option_info {
  size_t struct_size;
  const char *name;
  const char *type; /**< "string", "integer", "number", "boolean". */
  const char *default_value;
  const char *value; /**< As set. */
  const char *range;
  const char *doc;
} chorus_option_info;

CHORUS_API size_t chorus_context_get_option_count(const chorus_context *context);
/** @return CHORUS_OK; CHORUS_OUT_OF_RANGE. @since 0.1 */
CHORUS_API chorus_status chorus_context_get_option(const chorus_context *context, size_t index, chorus_option_info *out_info,
                                                   chorus_error **error);

/** The sticky asynchronous error of `device` ("cuda:0"), if any; waits for nothing.
 * @return CHORUS_OK; CHORUS_NOT_FOUND: no such device; the device's error. @since 0.1 */
CHORUS_API chorus_status chorus_device_check(const chorus_context *context, const char *device, chorus_error **error);

/** Memory of `device`, `bytes` long, aligned to 256 bytes (64 on host devices). Free with chorus_memory_free().
 * @return CHORUS_OK; CHORUS_NOT_FOUND: no such device; CHORUS_RESOURCE_EXHAUSTED. @since 0.1 */
CHORUS_API chorus_status chorus_memory_allocate(const chorus_context *context, const char *device, uint64_t bytes,
                                                void **out_memory, chorus_error **error);
/** Free what chorus_memory_allocate() gave, with the same `device` and `bytes`. NULL is fine. @since 0.1 */
CHORUS_API void chorus_memory_free(const chorus_context *context, const char *device, void *memory, uint64_t bytes);
/** Copy `bytes` between memory of `device` and host memory, or within the device; done on return.
 * @return CHORUS_OK; CHORUS_NOT_FOUND: no such device; the device's error. @since 0.1 */
CHORUS_API chorus_status chorus_memory_copy(const chorus_context *context, const char *device, void *to, const void *from,
                                            uint64_t bytes, chorus_error **error);

/** The built-in backend, through the same table as any plugin (plugin.h). Static. @since 0.1 */
CHORUS_API const struct chorus_plugin *chorus_reference_plugin(void);

/* generated by tests/abi/layout.py: begin */
#define CHORUS_PLUGIN_INFO_INIT {CHORUS_END_OF(chorus_plugin_info, reason), NULL, NULL, NULL, 0, 0, NULL}
#define CHORUS_DEVICE_INFO_INIT {CHORUS_END_OF(chorus_device_info, reason), NULL, NULL, NULL, 0, 0, 0, 0, NULL}
#define CHORUS_OPTION_INFO_INIT {CHORUS_END_OF(chorus_option_info, doc), NULL, NULL, NULL, NULL, NULL, NULL}
/* generated by tests/abi/layout.py: end */

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_CONTEXT_H_ */
