// SPDX-License-Identifier: Apache-2.0
// A backend opened through plugin.h alone, with a host of our own: it counts allocations, catches error
// texts, and chooses how many threads run and in which order pieces come.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "conformance/memory.h"

namespace conformance {

// Runs task(argument, i) for i in [0, count) on `threads` threads; 0: on this one, in reverse order.
void run_pieces(int threads, uint64_t count, chorus_task_fn task, void *argument);

class Backend {
 public:
  // `plugin` "": the built-in backend. `device` "": the plugin's first. Skips when the plugin offers no
  // device.
  static std::unique_ptr<Backend> open(const std::string &plugin, const std::string &device);
  ~Backend();

  const std::string &name() const { return name_; }         // of the device
  const std::string &plugin_path() const { return path_; }  // "": built in
  const DeviceMemory &memory() const { return memory_; }
  bool is_host() const { return memory_.functions == nullptr; }

  // Threads of parallel_for; 0: one thread that takes the pieces in reverse.
  void set_threads(int threads) { threads_ = threads; }

  // Fails the running test when memory is still held or an error was set without being returned.
  void check_clean();

 private:
  friend class Prepared;
  Backend(const chorus_plugin *plugin, std::string path);
  Backend(const Backend &) = delete;
  void open_device(const std::string &device);

  static void log(void *, chorus_log_level, const char *, size_t) {}
  static chorus_status set_error(chorus_error_slot slot, chorus_status code, const char *message,
                                 size_t length);
  static void *allocate(void *self, uint64_t bytes, uint64_t alignment);
  static void deallocate(void *self, void *memory, uint64_t bytes, uint64_t alignment);
  static const char *get_option(void *self, const char *name);
  static void parallel_for(void *self, uint64_t count, chorus_task_fn task, void *argument);
  static int32_t thread_count(void *self);

  const chorus_plugin *plugin_;
  std::string path_, name_;
  chorus_host host_;
  chorus_plugin_device *device_ = nullptr;
  DeviceMemory memory_;
  int threads_ = 1;
  std::atomic<int64_t> live_{0}, baseline_{0};
  std::atomic<int> running_{0};
};

// The best kernel of a backend for a descriptor, prepared. Skips, with each kernel's reason, when all refuse.
class Prepared {
 public:
  Prepared(Backend &backend, const char *op, const void *desc);
  ~Prepared();
  Prepared(const Prepared &) = delete;
  Prepared &operator=(const Prepared &) = delete;

  Backend &backend() const { return backend_; }
  // With a guarded workspace of exactly the bytes asked for, filled with garbage. Expects CHORUS_OK.
  void run(const void *args) const;

 private:
  Backend &backend_;
  const chorus_kernel *kernel_ = nullptr;
  void *state_ = nullptr;
};

}  // namespace conformance
