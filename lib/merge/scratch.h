// SPDX-License-Identifier: Apache-2.0
// Buffers of the pieces in work: as many as pieces run at once, each reused.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "runtime/allocate.h"

namespace chorus::merge {

class ScratchPool {
 public:
  explicit ScratchPool(uint64_t bytes) : bytes_(bytes) {}

  // A buffer for the life of the lease.
  class Lease {
   public:
    explicit Lease(ScratchPool *pool) : pool_(pool), buffer_(pool->take()) {}
    ~Lease() { pool_->give(std::move(buffer_)); }
    Lease(const Lease &) = delete;
    Lease &operator=(const Lease &) = delete;

    // The next `bytes` of it, aligned for kernels.
    void *allocate(uint64_t bytes) {
      char *at = buffer_.bytes() + used_;
      used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
      return at;
    }

   private:
    ScratchPool *pool_;
    Buffer buffer_;
    uint64_t used_ = 0;
  };

  static constexpr uint64_t kAlignment = 64;  // kScratchAlignment of the plan

 private:
  Buffer take() {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        Buffer buffer = std::move(free_.back());
        free_.pop_back();
        return buffer;
      }
    }
    return Buffer(bytes_, kAlignment, "a piece of a merge");
  }
  void give(Buffer buffer) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(buffer));
  }

  const uint64_t bytes_;
  std::mutex mutex_;
  std::vector<Buffer> free_;
};

}  // namespace chorus::merge
