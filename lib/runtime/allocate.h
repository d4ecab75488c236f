// SPDX-License-Identifier: Apache-2.0
// The allocation table: buffers of the core and of plugins come from here, so that tests can fail the n-th one.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

namespace chorus {

// Tests replace the entries (white-box builds only); never while another thread allocates.
struct AllocationTable {
  void *(*allocate)(size_t bytes, size_t alignment);
  void (*deallocate)(void *memory);
};
AllocationTable &allocation_table();

// Memory of `bytes` (at least one), `alignment` a power of two. NULL when there is none.
void *allocate_or_null(uint64_t bytes, uint64_t alignment) noexcept;
void deallocate(void *memory) noexcept;

// Owned bytes, uninitialised. Fails RESOURCE_EXHAUSTED, saying for what.
class Buffer {
 public:
  Buffer() = default;
  Buffer(uint64_t bytes, uint64_t alignment, const char *what);
  Buffer(Buffer &&other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer &operator=(Buffer &&other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Buffer() { deallocate(data_); }
  void *data() const { return data_; }
  char *bytes() const { return static_cast<char *>(data_); }
  uint64_t size() const { return bytes_; }

 private:
  void *data_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace chorus
