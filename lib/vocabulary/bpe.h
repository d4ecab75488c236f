// SPDX-License-Identifier: Apache-2.0
// Byte pair encoding of one word: its characters become tokens, then the neighbours of lowest rank merge until none do.
// O(n log n) by a heap of candidate merges; the order is that of the Python library `tokenizers`.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "vocabulary/tokenizer_file.h"

namespace chorus::vocabulary {

class Bpe {
 public:
  // Fails DATA_LOSS where merges name tokens that do not exist.
  explicit Bpe(const TokenizerFile &file);

  // Appends the ids of `word` (UTF-8). `vocabulary` is that of the file. Fails UNIMPLEMENTED for what reason() says.
  void encode(const StringTable &vocabulary, std::string_view word, std::vector<int32_t> *ids) const;

  // Why words cannot be encoded; "" when they can.
  const std::string &reason() const { return reason_; }

 private:
  struct Merge {
    uint64_t pair;  // left << 32 | right
    uint32_t rank;
    int32_t result;
  };
  struct Symbol {
    int32_t id, previous, next;
    bool removed;
  };
  struct Candidate {
    uint32_t rank;
    int32_t position, result;
    // For the heap, which puts the greatest first: lower rank, then further left, is greater.
    bool operator<(const Candidate &other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  void add_merges(const TokenizerFile &file);
  void put(const Merge &merge);
  const Merge *find(int32_t left, int32_t right) const;
  std::vector<Symbol> symbols_of(const StringTable &vocabulary, std::string_view word) const;
  bool append_bytes(std::string_view character, std::vector<Symbol> *symbols) const;
  void merge_all(std::vector<Symbol> *symbols) const;

  std::vector<Merge> merges_;  // open addressing by pair; a power of two, at most half full; result < 0: empty
  std::string reason_;
  int32_t unknown_ = -1;
  bool fuse_unknown_ = false, byte_fallback_ = false, ignore_merges_ = false;
  int32_t byte_ids_[256];
};

}  // namespace chorus::vocabulary
