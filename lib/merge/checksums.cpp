// SPDX-License-Identifier: Apache-2.0
// Hashing through a buffer that stays in the core's cache.
#include "merge/checksums.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "runtime/files.h"

namespace chorus::merge {
namespace {

constexpr uint64_t kBlock = uint64_t{256} << 10;

}  // namespace

Checksums::State Checksums::new_state() {
  State state(XXH3_createState());
  if (state == nullptr) throw std::bad_alloc();
  XXH3_64bits_reset(state.get());
  return state;
}

void Checksums::feed(XXH3_state_t *state, size_t tensor, uint64_t begin, uint64_t end) const {
  const checkpoint::Place &place = writer_->layout().places[tensor];
  std::vector<char> block(std::min(kBlock, end - begin));
  for (uint64_t at = begin; at < end; at += block.size()) {
    const uint64_t part = std::min<uint64_t>(block.size(), end - at);
    read_exactly(writer_->shard_file(place.shard), block.data(), part, place.offset + at);
    XXH3_64bits_update(state, block.data(), part);
  }
}

void Checksums::advance(size_t tensor, uint64_t end) {
  Tensor &t = tensors_[tensor];
  if (t.state == nullptr) t.state = new_state();
  feed(t.state.get(), tensor, t.done, end);
  t.done = end;
  if (end < writer_->layout().places[tensor].bytes) return;
  t.value = XXH3_64bits_digest(t.state.get());
  t.state.reset();
}

uint64_t Checksums::compute(size_t tensor) const {
  const State state = new_state();
  feed(state.get(), tensor, 0, writer_->layout().places[tensor].bytes);
  return XXH3_64bits_digest(state.get());
}

std::string hash_text(uint64_t hash) { return fmt::format("{:016x}", hash); }

}  // namespace chorus::merge
