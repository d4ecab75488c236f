// SPDX-License-Identifier: Apache-2.0
// Opening a plugin and running its kernels: see backend.h.
#include "conformance/backend.h"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "chorus/context.h"
#include "conformance/check.h"

namespace conformance {
namespace {

thread_local bool in_piece = false;

const chorus_plugin *query(const std::string &path) {
  void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw Stopped(dlerror());
  const auto function = reinterpret_cast<chorus_plugin_query_fn>(dlsym(library, CHORUS_PLUGIN_QUERY_SYMBOL));
  if (function == nullptr) throw Stopped(path + " exports no " CHORUS_PLUGIN_QUERY_SYMBOL);
  chorus_plugin_query_args args = CHORUS_PLUGIN_QUERY_ARGS_INIT;
  args.abi_major = CHORUS_PLUGIN_ABI_MAJOR;
  args.abi_minor = CHORUS_PLUGIN_ABI_MINOR;
  args.layout_hash = CHORUS_PLUGIN_LAYOUT_HASH;
  const chorus_plugin *plugin = function(&args);
  if (plugin == nullptr || plugin->magic != CHORUS_PLUGIN_MAGIC ||
      plugin->layout_hash != CHORUS_PLUGIN_LAYOUT_HASH)
    throw Stopped(path + " is not a plugin of this version");
  return plugin;
}

}  // namespace

void run_pieces(int threads, uint64_t count, chorus_task_fn task, void *argument) {
  if (threads == 0) {
    for (uint64_t i = count; i-- > 0;) task(argument, i);
    return;
  }
  if (threads == 1 || in_piece) {
    for (uint64_t i = 0; i < count; ++i) task(argument, i);
    return;
  }
  std::atomic<uint64_t> next{0};
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&] {
      in_piece = true;
      for (uint64_t i; (i = next++) < count;) task(argument, i);
    });
  }
  for (auto &thread : running) thread.join();
}

std::unique_ptr<Backend> Backend::open(const std::string &plugin, const std::string &device) {
  std::unique_ptr<Backend> backend(
      new Backend(plugin.empty() ? chorus_reference_plugin() : query(plugin), plugin));
  backend->open_device(device);
  return backend;
}

Backend::Backend(const chorus_plugin *plugin, std::string path) : plugin_(plugin), path_(std::move(path)) {
  host_ = {CHORUS_END_OF(chorus_host, thread_count),
           this,
           log,
           set_error,
           allocate,
           deallocate,
           get_option,
           parallel_for,
           thread_count};
}

void Backend::open_device(const std::string &device) {
  uint64_t count = 0;
  char why[512] = "";
  const chorus_device_desc *const *devices = plugin_->list_devices(&host_, &count, why, sizeof why);
  if (count == 0) skip(std::string("the plugin offers no device: ") + why);
  uint64_t index = 0;
  while (!device.empty() && index < count && device != devices[index]->name) ++index;
  if (index == count) throw Stopped("the plugin offers no device called " + device);
  name_ = devices[index]->name;
  std::string error;
  if (plugin_->open_device(&host_, index, &device_, &error) != CHORUS_OK) skip("device not opened: " + error);
  memory_.device = device_;
  memory_.device_type = devices[index]->device_type;
  memory_.device_id = devices[index]->device_id;
  if (plugin_->get_memory != nullptr) memory_.functions = plugin_->get_memory(device_);
  baseline_ = live_.load();
}

Backend::~Backend() {
  if (device_ != nullptr) plugin_->close_device(device_);
  if (live_ != 0) std::abort();  // a device that leaks
}

void Backend::check_clean() {
  expect(live_ == baseline_, "%lld allocations are held after every kernel was released",
         static_cast<long long>(live_ - baseline_));
  baseline_ = live_.load();
}

chorus_status Backend::set_error(chorus_error_slot slot, chorus_status code, const char *message,
                                 size_t length) {
  if (slot != nullptr) static_cast<std::string *>(slot)->assign(message, length);
  return code;
}

void *Backend::allocate(void *self, uint64_t bytes, uint64_t alignment) {
  auto &backend = *static_cast<Backend *>(self);
  expect(backend.running_ == 0, "host->allocate is called in run");
  backend.live_ += 1;
  return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

void Backend::deallocate(void *self, void *memory, uint64_t, uint64_t) {
  if (memory != nullptr) static_cast<Backend *>(self)->live_ -= 1;
  std::free(memory);
}

// CHORUS_TEST_OPTION is "name=value": one option that is not its default.
const char *Backend::get_option(void *self, const char *name) {
  const char *set = std::getenv("CHORUS_TEST_OPTION");
  const size_t length = std::strlen(name);
  if (set != nullptr && std::strncmp(set, name, length) == 0 && set[length] == '=') return set + length + 1;
  const chorus_plugin *plugin = static_cast<Backend *>(self)->plugin_;
  for (uint64_t i = 0; i < plugin->option_count; ++i) {
    if (std::strcmp(plugin->options[i]->name, name) == 0) return plugin->options[i]->default_value;
  }
  return nullptr;
}

void Backend::parallel_for(void *self, uint64_t count, chorus_task_fn task, void *argument) {
  run_pieces(static_cast<Backend *>(self)->threads_, count, task, argument);
}

int32_t Backend::thread_count(void *self) {
  const int threads = static_cast<Backend *>(self)->threads_;
  return threads == 0 ? 1 : threads;
}

Prepared::Prepared(Backend &backend, const char *op, const void *desc) : backend_(backend) {
  uint64_t count = 0;
  const chorus_kernel *const *kernels = backend.plugin_->get_kernels(backend.device_, &count);
  int32_t best = 0;
  std::string reasons;
  for (uint64_t i = 0; i < count; ++i) {
    if (std::strcmp(kernels[i]->op, op) != 0) continue;
    char why[512] = "";
    const int32_t score = kernels[i]->score(backend.device_, desc, why, sizeof why);
    if (score == 0) reasons += std::string(reasons.empty() ? "" : "; ") + kernels[i]->name + ": " + why;
    if (score > best) {
      best = score;
      kernel_ = kernels[i];
    }
  }
  if (kernel_ == nullptr) skip(reasons.empty() ? std::string("no kernel for ") + op : reasons);
  std::string error;
  if (kernel_->prepare(backend.device_, desc, &state_, &error) != CHORUS_OK)
    throw Stopped(std::string(kernel_->name) + ": prepare failed: " + error);
}

Prepared::~Prepared() {
  kernel_->release(state_);
}

void Prepared::run(const void *args) const {
  const uint64_t alignment =
      backend_.is_host() ? CHORUS_WORKSPACE_ALIGNMENT_HOST : CHORUS_WORKSPACE_ALIGNMENT_DEVICE;
  const uint64_t bytes = kernel_->workspace_size(state_, args);
  Buffer workspace(backend_.memory(), (bytes + alignment - 1) / alignment * alignment);
  workspace.upload();
  chorus_exec exec = CHORUS_EXEC_INIT;
  exec.workspace = workspace.device();
  exec.workspace_bytes = bytes;
  std::string error;
  ++backend_.running_;
  const chorus_status status = kernel_->run(state_, args, &exec, &error);
  --backend_.running_;
  expect(status == CHORUS_OK, "%s: run returned %d: %s", kernel_->name, status, error.c_str());
}

}  // namespace conformance
