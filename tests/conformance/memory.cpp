// SPDX-License-Identifier: Apache-2.0
// Guarded buffers: see memory.h.
#include "conformance/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "conformance/check.h"

namespace conformance {
namespace {

uint64_t page() {
  static const auto size = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return size;
}

void must(chorus_status status, const char *what) {
  if (status != CHORUS_OK) throw Stopped(std::string("device memory: ") + what + " failed");
}

}  // namespace

// Layout: guard page, pages, guard page; the bytes lie at one edge of the pages between.
Buffer::Buffer(const DeviceMemory &memory, uint64_t bytes, Edge edge) : memory_(memory), bytes_(bytes) {
  const uint64_t inner = (bytes + page() - 1) / page() * page();
  mapped_ = inner + 2 * page();
  void *mapping = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw Stopped("no memory for a test buffer");
  mapping_ = static_cast<char *>(mapping);
  if (inner > 0 && mprotect(mapping_ + page(), inner, PROT_READ | PROT_WRITE) != 0)
    throw Stopped("cannot map a test buffer");
  host_ = mapping_ + page() + (edge == Edge::kEnd ? inner - bytes : 0);
  std::memset(host_, 0xA5, bytes);  // what is not written shows
  device_ = host_;
  if (memory_.functions != nullptr)
    must(memory_.functions->allocate(memory_.device, bytes, &device_, nullptr), "allocate");
}

Buffer::~Buffer() {
  if (memory_.functions != nullptr) memory_.functions->free(memory_.device, device_);
  munmap(mapping_, mapped_);
}

void Buffer::upload() {
  if (memory_.functions != nullptr && bytes_ > 0)
    must(memory_.functions->copy(memory_.device, device_, host_, bytes_, nullptr, nullptr), "copy");
}

void Buffer::download() {
  if (memory_.functions != nullptr && bytes_ > 0)
    must(memory_.functions->copy(memory_.device, host_, device_, bytes_, nullptr, nullptr), "copy");
}

void Buffer::protect(bool read_only) {
  if (memory_.functions != nullptr || mapped_ == 2 * page()) return;
  mprotect(mapping_ + page(), mapped_ - 2 * page(), read_only ? PROT_READ : PROT_READ | PROT_WRITE);
}

}  // namespace conformance
