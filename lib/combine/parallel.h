// SPDX-License-Identifier: Apache-2.0
// Loops over rows on the context's pool, for host-side work that needs scratch memory.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>

#include "runtime/pool.h"

namespace chorus::combine {

// body(i) for i in [0, count) on the pool. What a piece throws is thrown again here, after all are done; of several, the one
// of the lowest index.
template <typename Body>
void parallel_for(const Pool &pool, int64_t count, const Body &body) {
  struct Loop {
    const Body *body;
    std::mutex mutex;
    std::exception_ptr error;
    uint64_t failed;
  } loop{&body, {}, nullptr, 0};
  const auto run = [](void *argument, uint64_t index) {
    auto *self = static_cast<Loop *>(argument);
    try {
      (*self->body)(static_cast<int64_t>(index));
    } catch (...) {
      const std::lock_guard lock(self->mutex);
      if (self->error == nullptr || index < self->failed) {
        self->error = std::current_exception();
        self->failed = index;
      }
    }
  };
  if (count > 0) pool.parallel_for(static_cast<uint64_t>(count), run, &loop);
  if (loop.error != nullptr) std::rethrow_exception(loop.error);
}

// Runs of rows, a few per thread, so that each run can own scratch memory: body(first, end).
template <typename Body>
void parallel_runs(const Pool &pool, int64_t rows, const Body &body) {
  const int64_t runs = std::min<int64_t>(rows, int64_t{4} * pool.threads());
  parallel_for(pool, runs, [&](int64_t run) { body(rows * run / runs, rows * (run + 1) / runs); });
}

}  // namespace chorus::combine
