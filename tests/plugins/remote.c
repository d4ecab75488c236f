/* SPDX-License-Identifier: Apache-2.0
 *
 * A device whose memory the host may not dereference, without a GPU: addresses it hands out are mapped PROT_NONE, so
 * that a read or write by the core faults; the bytes live elsewhere. Its kernel is the template's behind that wall:
 * it gets every tensor and the workspace by remote address, and runs on the bytes behind them.
 * Option remote.fault=true makes check_device report a fault once a kernel ran, as an asynchronous device would.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define chorus_plugin_query template_query
#include "template.c"
#undef chorus_plugin_query

#define WORKSPACE_BYTES 300   /* more than the template needs, to see where it lies */

/* ---- Memory: remote address -> bytes -------------------------------------------------------- */

typedef struct block {
  struct block *next;
  char *address; /* PROT_NONE */
  char *bytes;
  uint64_t size;
} block;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static block *blocks;
static int has_run;

/* The bytes behind [address, address + size); NULL unless they lie within one block. */
static void *behind(const void *address, uint64_t size) {
  const uintptr_t at = (uintptr_t)address;
  void *found = NULL;
  block *b;
  pthread_mutex_lock(&mutex);
  for (b = blocks; b != NULL && found == NULL; b = b->next) {
    const uintptr_t begin = (uintptr_t)b->address;
    if (at >= begin && at - begin <= b->size && size <= b->size - (at - begin)) found = b->bytes + (at - begin);
  }
  pthread_mutex_unlock(&mutex);
  return found;
}

static chorus_status say(const chorus_host *host, chorus_error_slot slot, chorus_status status, const char *message) {
  return host->set_error(slot, status, message, strlen(message));
}

static chorus_status remote_allocate(chorus_plugin_device *device, uint64_t bytes, void **out, chorus_error_slot slot) {
  block *b = (block *)calloc(1, sizeof(*b));
  if (bytes > UINT64_C(1) << 40) {
    free(b);
    return say(device->host, slot, CHORUS_RESOURCE_EXHAUSTED, "remote memory ends at 1 TiB");
  }
  if (b != NULL) {
    b->size = bytes;
    b->bytes = (char *)calloc(1, (size_t)bytes + 1);
    b->address = (char *)mmap(NULL, (size_t)bytes + 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  if (b == NULL || b->bytes == NULL || b->address == (char *)MAP_FAILED) {
    if (b != NULL) free(b->bytes);
    free(b);
    return say(device->host, slot, CHORUS_RESOURCE_EXHAUSTED, "no remote memory");
  }
  pthread_mutex_lock(&mutex);
  b->next = blocks;
  blocks = b;
  pthread_mutex_unlock(&mutex);
  *out = b->address;
  return CHORUS_OK;
}

static void remote_free(chorus_plugin_device *device, void *memory) {
  block **at, *found = NULL;
  (void)device;
  pthread_mutex_lock(&mutex);
  for (at = &blocks; *at != NULL && found == NULL;) {
    if ((*at)->address == (char *)memory) {
      found = *at;
      *at = found->next;
    } else {
      at = &(*at)->next;
    }
  }
  pthread_mutex_unlock(&mutex);
  if (found == NULL) return;
  munmap(found->address, (size_t)found->size + 1);
  free(found->bytes);
  free(found);
}

static chorus_status host_allocate(chorus_plugin_device *device, uint64_t bytes, void **out, chorus_error_slot slot) {
  *out = malloc((size_t)bytes);
  return *out != NULL ? CHORUS_OK : say(device->host, slot, CHORUS_RESOURCE_EXHAUSTED, "no host memory");
}

static void host_free(chorus_plugin_device *device, void *memory) {
  (void)device;
  free(memory);
}

/* An address that is no block's is the host's. */
static chorus_status copy(chorus_plugin_device *device, void *to, const void *from, uint64_t bytes,
                          chorus_native_handle stream, chorus_error_slot slot) {
  void *target = behind(to, bytes);
  const void *source = behind(from, bytes);
  (void)stream;
  if (target == NULL && source == NULL) {
    return say(device->host, slot, CHORUS_INVALID_ARGUMENT, "neither end of the copy is remote, or it leaves its block");
  }
  memmove(target != NULL ? target : to, source != NULL ? source : from, (size_t)bytes);
  return CHORUS_OK;
}

/* All work is done on return: streams and events have nothing to hold. */
static chorus_status create_handle(chorus_plugin_device *device, chorus_native_handle *out, chorus_error_slot slot) {
  static int handle;
  (void)device;
  (void)slot;
  *out = &handle;
  return CHORUS_OK;
}

static void destroy_handle(chorus_plugin_device *device, chorus_native_handle handle) {
  (void)device;
  (void)handle;
}

static chorus_status stream_wait(chorus_plugin_device *device, chorus_native_handle stream, chorus_error_slot slot) {
  (void)device;
  (void)stream;
  (void)slot;
  return CHORUS_OK;
}

static chorus_status event_with_stream(chorus_plugin_device *device, chorus_native_handle event,
                                       chorus_native_handle stream, chorus_error_slot slot) {
  (void)event;
  return stream_wait(device, stream, slot);
}

static const chorus_device_memory *get_memory(chorus_plugin_device *device) {
  static const chorus_device_memory memory = {CHORUS_END_OF(chorus_device_memory, event_wait),
                                              remote_allocate,
                                              remote_free,
                                              host_allocate,
                                              host_free,
                                              copy,
                                              create_handle,
                                              destroy_handle,
                                              stream_wait,
                                              create_handle,
                                              destroy_handle,
                                              event_with_stream,
                                              event_with_stream};
  (void)device;
  return &memory;
}

/* ---- Kernel: the template's, on the bytes behind ---------------------------------------------- */

/* `*tensor` becomes `view`, the same tensor on local bytes. 0: its memory is not remote. */
static int look_behind(const chorus_tensor **tensor, chorus_tensor *view) {
  if (*tensor == NULL) return 1;
  *view = **tensor;
  view->data = behind(view->data, view->size_bytes);
  *tensor = view;
  return view->data != NULL || view->size_bytes == 0;
}

static uint64_t remote_workspace_size(const void *prepared, const void *args) {
  (void)prepared;
  (void)args;
  return WORKSPACE_BYTES;
}

static chorus_status remote_run(const void *prepared, const void *args, const chorus_exec *exec,
                                chorus_error_slot slot) {
  const combiner *c = (const combiner *)prepared;
  chorus_combine_args local = *(const chorus_combine_args *)args;
  const chorus_tensor *scores[CHORUS_COMBINE_MAX_MODELS];
  chorus_tensor views[CHORUS_COMBINE_MAX_MODELS], others[4];
  int32_t i;
  int is_remote = look_behind(&local.weights, &others[0]) && look_behind(&local.temperatures, &others[1]) &&
                  look_behind(&local.log_probs, &others[2]) && look_behind(&local.status, &others[3]);
  for (i = 0; i < c->n_models; ++i) {
    scores[i] = local.scores[i];
    is_remote = is_remote && look_behind(&scores[i], &views[i]);
  }
  local.scores = scores;
  if (!is_remote) return say(c->host, slot, CHORUS_INVALID_ARGUMENT, "a tensor is not in remote memory");
  if (behind(exec->workspace, WORKSPACE_BYTES) == NULL || exec->stream == NULL) {
    return say(c->host, slot, CHORUS_INVALID_ARGUMENT, "the workspace is not in remote memory, or there is no stream");
  }
  has_run = 1;
  return run(prepared, &local, exec, slot);
}

static const chorus_kernel *const *get_remote_kernels(chorus_plugin_device *device, uint64_t *count_out) {
  static const chorus_kernel kernel = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                       CHORUS_OP_COMBINE_ROWS,
                                       1,
                                       0,
                                       "combine_rows_behind_the_wall",
                                       score,
                                       prepare,
                                       remote_workspace_size,
                                       remote_run,
                                       release,
                                       NULL};
  static const chorus_kernel *const kernels[] = {&kernel};
  (void)device;
  *count_out = 1;
  return kernels;
}

/* ---- Device and plugin ------------------------------------------------------------------------ */

static const chorus_device_desc *const *list_remote_devices(const chorus_host *host, uint64_t *count_out, char *why,
                                                            size_t why_bytes) {
  static const chorus_device_desc desc = {CHORUS_END_OF(chorus_device_desc, device_id), "remote:0",
                                          "memory behind a wall", CHORUS_DEVICE_EXTENSION, 0};
  static const chorus_device_desc *const devices[] = {&desc};
  (void)host;
  (void)why;
  (void)why_bytes;
  *count_out = 1;
  return devices;
}

static chorus_status check_device(chorus_plugin_device *device, chorus_error_slot slot) {
  const char *fault = device->host->get_option(device->host->self, "remote.fault");
  if (!has_run || strcmp(fault, "true") != 0) return CHORUS_OK;
  return say(device->host, slot, CHORUS_UNAVAILABLE, "simulated fault; last kernel: combine_rows_behind_the_wall");
}

static const chorus_plugin_option fault_option = {CHORUS_END_OF(chorus_plugin_option, maximum),
                                                  "remote.fault",
                                                  "false",
                                                  "true or false",
                                                  "Report a fault once a kernel ran.",
                                                  CHORUS_OPTION_BOOLEAN,
                                                  0,
                                                  0,
                                                  0};
static const chorus_plugin_option *const remote_options[] = {&fault_option};

static const chorus_plugin remote_plugin = {CHORUS_PLUGIN_MAGIC,
                                            CHORUS_PLUGIN_ABI_MAJOR,
                                            CHORUS_PLUGIN_ABI_MINOR,
                                            CHORUS_END_OF(chorus_plugin, check_device),
                                            CHORUS_PLUGIN_LAYOUT_HASH,
                                            "remote",
                                            "0.1.0",
                                            CHORUS_SANITIZER_THIS_BUILD,
                                            0,
                                            0,
                                            {0},
                                            remote_options,
                                            1,
                                            list_remote_devices,
                                            open_device,
                                            close_device,
                                            get_remote_kernels,
                                            get_memory,
                                            check_device};

__attribute__((visibility("default"))) const chorus_plugin *chorus_plugin_query(const chorus_plugin_query_args *args);

const chorus_plugin *chorus_plugin_query(const chorus_plugin_query_args *args) {
  return template_query(args) != NULL ? &remote_plugin : NULL;
}
