// SPDX-License-Identifier: Apache-2.0
// Many strings with an id each, compactly: one run of characters, a span per id, a hash index. Some 30 bytes beside the text.
#pragma once
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace chorus::vocabulary {

class StringTable {
 public:
  // Ids 0 … size() - 1; those that nothing was put at are absent.
  size_t size() const { return spans_.size(); }
  bool has(size_t id) const { return id < spans_.size() && spans_[id].begin != kAbsent; }
  // Ends with a 0 behind its last character; "" for an absent id.
  std::string_view at(size_t id) const {
    return has(id) ? std::string_view(text_.data() + spans_[id].begin, spans_[id].length) : std::string_view("");
  }
  void reserve_ids(size_t count) { spans_.resize(count, Span{}); }
  // `id` is below size() and absent.
  void put(size_t id, std::string_view text);

  // After all were put: index them by text. Where texts are equal the lowest id wins, those marked `last` after the others.
  void index(const std::vector<bool> &last = {});
  // -1 when there is none.
  int32_t find(std::string_view text) const;

 private:
  static constexpr uint64_t kAbsent = std::numeric_limits<uint64_t>::max();
  struct Span {
    uint64_t begin = kAbsent;
    uint64_t length = 0;
  };
  size_t slot_of(std::string_view text) const;
  void add_to_index(size_t id);

  std::string text_;
  std::vector<Span> spans_;
  std::vector<int32_t> slots_;  // ids or -1; a power of two, at most half full
};

}  // namespace chorus::vocabulary
