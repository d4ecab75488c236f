// SPDX-License-Identifier: Apache-2.0
// Open addressing over XXH3, seeded per process so that no file can choose its collisions.
#include "vocabulary/string_table.h"

#include <xxhash.h>

#include <bit>
#include <random>

namespace chorus::vocabulary {
namespace {

uint64_t hash(std::string_view text) {
  static const uint64_t kSeed = std::random_device()();
  return XXH3_64bits_withSeed(text.data(), text.size(), kSeed);
}

}  // namespace

void StringTable::put(size_t id, std::string_view text) {
  spans_[id] = {text_.size(), text.size()};
  text_ += text;
  text_ += '\0';
}

void StringTable::add_to_index(size_t id) {
  int32_t &slot = slots_[slot_of(at(id))];
  if (slot < 0) slot = static_cast<int32_t>(id);
}

void StringTable::index(const std::vector<bool> &last) {
  size_t count = 0;
  for (size_t id = 0; id < size(); ++id) count += has(id);
  slots_.assign(std::bit_ceil(2 * count + 1), -1);
  for (const bool turn : {false, true}) {
    for (size_t id = 0; id < size(); ++id) {
      if (has(id) && (id < last.size() && last[id]) == turn) add_to_index(id);
    }
  }
}

size_t StringTable::slot_of(std::string_view text) const {
  size_t slot = hash(text) & (slots_.size() - 1);
  while (slots_[slot] >= 0 && at(static_cast<size_t>(slots_[slot])) != text) slot = (slot + 1) & (slots_.size() - 1);
  return slot;
}

int32_t StringTable::find(std::string_view text) const { return slots_.empty() ? -1 : slots_[slot_of(text)]; }

}  // namespace chorus::vocabulary
