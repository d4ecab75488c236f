// SPDX-License-Identifier: Apache-2.0
// Scratch memory for calls without `exec`: one buffer per thread and context, grown when needed and kept.
#pragma once
#include <cstdint>
#include <memory>

#include "runtime/allocate.h"

namespace chorus {

// The buffers of one context. They go with the context or with their thread, whichever ends first.
class WorkspaceCaches {
 public:
  struct Cache {
    Buffer buffer;
    bool is_lent = false;
  };

  WorkspaceCaches();
  ~WorkspaceCaches();
  WorkspaceCaches(const WorkspaceCaches &) = delete;
  WorkspaceCaches &operator=(const WorkspaceCaches &) = delete;

  // The calling thread's buffer. Costs two comparisons when the thread's last call was on the same context.
  Cache &mine() const;

  struct State;

 private:
  std::shared_ptr<State> state_;
};

// At least `bytes` of aligned scratch for the life of this object; NULL for 0. A call within a call on the same thread
// gets memory of its own. Fails RESOURCE_EXHAUSTED.
class Workspace {
 public:
  Workspace(const WorkspaceCaches &caches, uint64_t bytes);
  ~Workspace() {
    if (cache_ != nullptr) cache_->is_lent = false;
  }
  Workspace(const Workspace &) = delete;
  Workspace &operator=(const Workspace &) = delete;
  void *data() const { return cache_ != nullptr ? cache_->buffer.data() : own_.data(); }

 private:
  WorkspaceCaches::Cache *cache_ = nullptr;
  Buffer own_;
};

}  // namespace chorus
