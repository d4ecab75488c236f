// SPDX-License-Identifier: Apache-2.0
// Merges in an open hash table keyed by the pair of ids; a word as a doubly linked list in one array.
#include "vocabulary/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <queue>

#include "runtime/error.h"
#include "runtime/utf8.h"

namespace chorus::vocabulary {
namespace {

uint64_t mixed(uint64_t pair) {
  pair ^= pair >> 32;
  pair *= 0x9e3779b97f4a7c15u;
  return pair ^ pair >> 29;
}

uint64_t pair_of(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

std::string text_field(const nlohmann::json &model, const char *name) {
  const auto found = model.find(name);
  return found != model.end() && found->is_string() ? found->get<std::string>() : "";
}

bool flag(const nlohmann::json &model, const char *name) {
  const auto found = model.find(name);
  return found != model.end() && found->is_boolean() && found->get<bool>();
}

}  // namespace

Bpe::Bpe(const TokenizerFile &file) {
  const nlohmann::json &model = file.rest.at("model");
  fuse_unknown_ = flag(model, "fuse_unk");
  byte_fallback_ = flag(model, "byte_fallback");
  ignore_merges_ = flag(model, "ignore_merges");
  for (const char *name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const std::string value = text_field(model, name); !value.empty()) reason_ = fmt::format("model.{} '{}'", name, shown(value));
  }
  const auto dropout = model.find("dropout");
  if (dropout != model.end() && dropout->is_number() && dropout->get<double>() != 0) reason_ = "model.dropout";
  if (const std::string unknown = text_field(model, "unk_token"); !unknown.empty()) {
    unknown_ = file.vocabulary.find(unknown);
    if (unknown_ < 0) fail(CHORUS_DATA_LOSS, "{}: unk_token '{}' is not in the vocabulary", file.path, shown(unknown));
  }
  for (int byte = 0; byte < 256; ++byte) byte_ids_[byte] = file.vocabulary.find(fmt::format("<0x{:02X}>", byte));
  if (reason_.empty()) add_merges(file);
}

void Bpe::add_merges(const TokenizerFile &file) {
  merges_.assign(std::bit_ceil(2 * file.merges.size() + 1), Merge{0, 0, -1});
  const auto id_of = [&](std::string_view text, size_t rank) {
    const int32_t id = file.vocabulary.find(text);
    if (id < 0) fail(CHORUS_DATA_LOSS, "{}: merge {} names '{}', which is not in the vocabulary", file.path, rank, shown(text));
    return id;
  };
  for (size_t rank = 0; rank < file.merges.size(); ++rank) {
    const auto [left, right] = file.merges.at(rank);
    const std::string_view both(left.data(), left.size() + right.size());  // they lie side by side
    put({pair_of(id_of(left, rank), id_of(right, rank)), static_cast<uint32_t>(rank), id_of(both, rank)});
  }
}

// Of a pair that stands twice the later rank counts, as in the library.
void Bpe::put(const Merge &merge) {
  size_t slot = mixed(merge.pair) & (merges_.size() - 1);
  while (merges_[slot].result >= 0 && merges_[slot].pair != merge.pair) slot = (slot + 1) & (merges_.size() - 1);
  merges_[slot] = merge;
}

const Bpe::Merge *Bpe::find(int32_t left, int32_t right) const {
  const uint64_t pair = pair_of(left, right);
  for (size_t slot = mixed(pair) & (merges_.size() - 1); merges_[slot].result >= 0; slot = (slot + 1) & (merges_.size() - 1)) {
    if (merges_[slot].pair == pair) return &merges_[slot];
  }
  return nullptr;
}

bool Bpe::append_bytes(std::string_view character, std::vector<Symbol> *symbols) const {
  if (!byte_fallback_) return false;
  const auto id = [&](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
  if (std::ranges::any_of(character, [&](char c) { return id(c) < 0; })) return false;
  for (const char c : character) symbols->push_back({id(c), 0, 0, false});
  return true;
}

std::vector<Bpe::Symbol> Bpe::symbols_of(const StringTable &vocabulary, std::string_view word) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  // An unknown character waits, so that a run of them can become one; bytes do not end the wait (as in the library).
  bool waiting = false;
  for (size_t at = 0; at < word.size();) {
    const size_t begin = at;
    next_code_point(word, &at);
    const std::string_view character = word.substr(begin, at - begin);
    const int32_t id = vocabulary.find(character);
    if (id >= 0) {
      if (waiting) symbols.push_back({unknown_, 0, 0, false});
      waiting = false;
      symbols.push_back({id, 0, 0, false});
    } else if (!append_bytes(character, &symbols) && unknown_ >= 0) {
      if (waiting && !fuse_unknown_) symbols.push_back({unknown_, 0, 0, false});
      waiting = true;
    }
  }
  if (waiting) symbols.push_back({unknown_, 0, 0, false});
  return symbols;
}

void Bpe::merge_all(std::vector<Symbol> *list) const {
  std::vector<Symbol> &symbols = *list;
  const int32_t count = static_cast<int32_t>(symbols.size());
  std::priority_queue<Candidate> queue;
  const auto consider = [&](int32_t left, int32_t right) {
    const Merge *merge = find(symbols[static_cast<size_t>(left)].id, symbols[static_cast<size_t>(right)].id);
    if (merge != nullptr) queue.push({merge->rank, left, merge->result});
  };
  for (int32_t i = 0; i < count; ++i) {
    symbols[static_cast<size_t>(i)].previous = i - 1;
    symbols[static_cast<size_t>(i)].next = i + 1 < count ? i + 1 : -1;
    if (i + 1 < count) consider(i, i + 1);
  }
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol &left = symbols[static_cast<size_t>(top.position)];
    if (left.removed || left.next < 0) continue;
    Symbol &right = symbols[static_cast<size_t>(left.next)];
    const Merge *merge = find(left.id, right.id);
    if (merge == nullptr || merge->result != top.result) continue;  // the pair is no longer what it was
    left.id = top.result;
    left.next = right.next;
    right.removed = true;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = top.position;
    if (left.previous >= 0) consider(left.previous, top.position);
    if (left.next >= 0) consider(top.position, left.next);
  }
}

void Bpe::encode(const StringTable &vocabulary, std::string_view word, std::vector<int32_t> *ids) const {
  if (!reason_.empty()) fail(CHORUS_UNIMPLEMENTED, "encoding with {} is not implemented", reason_);
  if (ignore_merges_) {
    if (const int32_t whole = vocabulary.find(word); whole >= 0) return ids->push_back(whole);
  }
  std::vector<Symbol> symbols = symbols_of(vocabulary, word);
  if (symbols.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    fail(CHORUS_RESOURCE_EXHAUSTED, "a word of {} characters is too long", symbols.size());
  }
  merge_all(&symbols);
  for (const Symbol &symbol : symbols) {
    if (!symbol.removed) ids->push_back(symbol.id);
  }
}

}  // namespace chorus::vocabulary
