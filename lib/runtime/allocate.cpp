// SPDX-License-Identifier: Apache-2.0
// aligned_alloc behind a table.
#include "runtime/allocate.h"

#include <cstdlib>

#include "runtime/checked.h"
#include "runtime/error.h"

namespace chorus {
namespace {

void *system_allocate(size_t bytes, size_t alignment) { return std::aligned_alloc(alignment, bytes); }
void system_deallocate(void *memory) { std::free(memory); }

}  // namespace

AllocationTable &allocation_table() {
  static AllocationTable table = {system_allocate, system_deallocate};
  return table;
}

void *allocate_or_null(uint64_t bytes, uint64_t alignment) noexcept {
  if (alignment < sizeof(void *)) alignment = sizeof(void *);
  const auto rounded = round_up(bytes == 0 ? 1 : bytes, alignment);
  return rounded && *rounded <= PTRDIFF_MAX ? allocation_table().allocate(*rounded, alignment) : nullptr;
}

void deallocate(void *memory) noexcept {
  if (memory != nullptr) allocation_table().deallocate(memory);
}

Buffer::Buffer(uint64_t bytes, uint64_t alignment, const char *what)
    : data_(allocate_or_null(bytes, alignment)), bytes_(bytes) {
  if (data_ == nullptr) fail(CHORUS_RESOURCE_EXHAUSTED, "no memory for {} ({} bytes)", what, bytes);
}

}  // namespace chorus
