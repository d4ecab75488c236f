// SPDX-License-Identifier: Apache-2.0
// One arena per context: loops of different contexts do not steal each other's threads.
#include "runtime/pool.h"

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/info.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>
#include <unistd.h>

#include <atomic>
#include <exception>
#include <utility>

#include "runtime/float_environment.h"

namespace chorus {

namespace {

// More threads than processors are legal (option `threads`); TBB would warn on stderr and start fewer. The same value for
// every pool, because the least of a process counts.
constexpr size_t kMostThreads = 1025;

std::unique_ptr<tbb::global_control> allow(int threads) {
  if (threads <= tbb::info::default_concurrency()) return nullptr;
  return std::make_unique<tbb::global_control>(tbb::global_control::max_allowed_parallelism, kMostThreads);
}

}  // namespace

struct Pool::Arena {
  explicit Arena(int threads) : control(allow(threads)), arena(threads) {}
  std::unique_ptr<tbb::global_control> control;
  tbb::task_arena arena;
};

namespace {

thread_local bool inside_piece = false;

// A loop and the guard around each of its pieces. Exceptions stay inside: a host's pool may be C. The first is kept, the
// pieces not yet begun are skipped.
class Loop {
 public:
  Loop(chorus_task_fn task, void *argument) : task_(task), argument_(argument) {}

  static void run_piece(void *self, uint64_t index) { static_cast<Loop *>(self)->run(index); }

  void finish() const {
    if (first_ != nullptr) std::rethrow_exception(first_);
  }

 private:
  void run(uint64_t index) noexcept {
    if (has_failed_.load(std::memory_order_relaxed)) return;
    const DefaultFloatEnvironment environment;
    const bool before = std::exchange(inside_piece, true);
    try {
      task_(argument_, index);
    } catch (...) {
      if (!has_failed_.exchange(true)) first_ = std::current_exception();
    }
    inside_piece = before;
  }

  chorus_task_fn task_;
  void *argument_;
  std::atomic<bool> has_failed_ = false;
  std::exception_ptr first_;  // written by the one that set has_failed_, read when all pieces are done
};

}  // namespace

Pool::Pool(int32_t threads, const HostPool &host)
    : threads_(host.parallel_for != nullptr ? host.threads : threads > 0 ? threads : tbb::info::default_concurrency()),
      host_(host),
      process_(getpid()) {
  if (host_.parallel_for == nullptr && threads_ > 1) arena_ = std::make_unique<Arena>(threads_);
}

Pool::~Pool() {
  if (getpid() != process_) static_cast<void>(arena_.release());  // its threads and locks belong to the parent
}

void Pool::parallel_for(uint64_t count, chorus_task_fn task, void *argument) const {
  if (count <= 1 || threads_ <= 1 || inside_piece || getpid() != process_) {
    // Not marked as a piece: a loop of one piece may itself hold a parallel loop.
    const DefaultFloatEnvironment environment;
    for (uint64_t i = 0; i < count; ++i) task(argument, i);
    return;
  }
  Loop loop(task, argument);
  if (host_.parallel_for != nullptr) {
    host_.parallel_for(host_.user, count, Loop::run_piece, &loop);
  } else {
    arena_->arena.execute([&] {
      tbb::parallel_for(
          tbb::blocked_range<uint64_t>(0, count, 1),
          [&](const tbb::blocked_range<uint64_t> &range) {
            for (uint64_t i = range.begin(); i != range.end(); ++i) Loop::run_piece(&loop, i);
          },
          tbb::simple_partitioner());
    });
  }
  loop.finish();
}

}  // namespace chorus
