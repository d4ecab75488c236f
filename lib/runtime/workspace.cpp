// SPDX-License-Identifier: Apache-2.0
// Finding a thread's buffer: a two-word memory of the last one, then the thread's list, then a new one.
#include "runtime/workspace.h"

#include <atomic>
#include <list>
#include <mutex>
#include <vector>

#include "chorus/types.h"

namespace chorus {

// Shared with the threads' lists, so that a thread that ends after the context finds nothing to free.
struct WorkspaceCaches::State {
  std::mutex mutex;
  std::list<Cache> caches;
  uint64_t serial = 0;  // never used twice, unlike addresses
};

namespace {

using State = WorkspaceCaches::State;

struct Entry {
  uint64_t serial;
  std::weak_ptr<State> state;
  std::list<WorkspaceCaches::Cache>::iterator cache;
};

// A thread's buffers; gives them back when the thread ends.
struct Entries {
  std::vector<Entry> list;
  ~Entries() {
    for (const Entry &entry : list) {
      if (const auto state = entry.state.lock()) {
        const std::lock_guard lock(state->mutex);
        state->caches.erase(entry.cache);
      }
    }
  }
};

struct Last {
  uint64_t serial;
  WorkspaceCaches::Cache *cache;
};

thread_local Entries entries;
constinit thread_local Last last = {0, nullptr};  // trivially destroyed: no guard on the fast path

WorkspaceCaches::Cache &find_or_add(const std::shared_ptr<State> &state) {
  for (const Entry &entry : entries.list) {
    if (entry.serial == state->serial) return *entry.cache;
  }
  std::erase_if(entries.list, [](const Entry &entry) { return entry.state.expired(); });
  entries.list.reserve(entries.list.size() + 1);  // so that nothing fails once the buffer is listed
  const std::lock_guard lock(state->mutex);
  state->caches.emplace_front();
  entries.list.push_back({state->serial, state, state->caches.begin()});
  return state->caches.front();
}

}  // namespace

WorkspaceCaches::WorkspaceCaches() : state_(std::make_shared<State>()) {
  static std::atomic<uint64_t> serials = 0;
  state_->serial = ++serials;
}

WorkspaceCaches::~WorkspaceCaches() = default;

WorkspaceCaches::Cache &WorkspaceCaches::mine() const {
  if (last.serial != state_->serial) last = {state_->serial, &find_or_add(state_)};
  return *last.cache;
}

Workspace::Workspace(const WorkspaceCaches &caches, uint64_t bytes) {
  if (bytes == 0) return;
  WorkspaceCaches::Cache &mine = caches.mine();
  if (mine.is_lent) {
    own_ = Buffer(bytes, CHORUS_WORKSPACE_ALIGNMENT_HOST, "workspace");
    return;
  }
  if (mine.buffer.size() < bytes) {
    mine.buffer = Buffer();  // free first: old and new together may not fit
    mine.buffer = Buffer(bytes, CHORUS_WORKSPACE_ALIGNMENT_HOST, "workspace");
  }
  mine.is_lent = true;
  cache_ = &mine;
}

}  // namespace chorus
