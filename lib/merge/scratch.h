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
  // Buffers of `bytes`, the first of them cut from `lent`.
  struct Lent {
    void *memory = nullptr;
    uint64_t bytes = 0;
  };
  ScratchPool(uint64_t bytes, const Lent &lent) : bytes_(bytes) {
    for (uint64_t at = 0; bytes > 0 && at + bytes <= lent.bytes; at += bytes) free_.push_back(static_cast<char *>(lent.memory) + at);
  }

  // A buffer for the life of the lease.
  class Lease {
   public:
    explicit Lease(ScratchPool *pool) : pool_(pool), buffer_(pool->take()) {}
    ~Lease() { pool_->give(buffer_); }
    Lease(const Lease &) = delete;
    Lease &operator=(const Lease &) = delete;

    // The next `bytes` of it, aligned for kernels.
    void *allocate(uint64_t bytes) {
      char *at = buffer_ + used_;
      used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
      return at;
    }

   private:
    ScratchPool *pool_;
    char *buffer_;
    uint64_t used_ = 0;
  };

  static constexpr uint64_t kAlignment = 64;  // kScratchAlignment of the plan

 private:
  char *take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) {
      own_.emplace_back(bytes_, kAlignment, "a piece of a merge");
      return own_.back().bytes();
    }
    char *buffer = free_.back();
    free_.pop_back();
    return buffer;
  }
  void give(char *buffer) {
    const std::lock_guard lock(mutex_);
    free_.push_back(buffer);
  }

  const uint64_t bytes_;
  std::mutex mutex_;
  std::vector<Buffer> own_;
  std::vector<char *> free_;
};

}  // namespace chorus::merge
