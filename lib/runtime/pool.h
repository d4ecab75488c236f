// SPDX-License-Identifier: Apache-2.0
// The thread pool of a context: parallel loops on a oneTBB arena of its own, or on the host's pool.
#pragma once
#include <cstdint>
#include <memory>

#include "chorus/context.h"
#include "chorus/plugin.h"

namespace chorus {

// Where loops run instead of an own arena.
struct HostPool {
  chorus_parallel_for_fn parallel_for = nullptr;
  void *user = nullptr;
  int32_t threads = 0;
};

class Pool {
 public:
  // `threads` 0: as many as the process may use.
  Pool(int32_t threads, const HostPool &host);
  ~Pool();

  int32_t threads() const { return threads_; }

  // Calls task(argument, i) for every i in [0, count), in the default floating-point environment; returns when all are
  // done. Serial with one thread or piece, from within a piece, and in a forked child, whose pool threads are gone.
  void parallel_for(uint64_t count, chorus_task_fn task, void *argument) const;

 private:
  struct Arena;
  int32_t threads_;
  HostPool host_;
  int process_;
  std::unique_ptr<Arena> arena_;
};

}  // namespace chorus
