// SPDX-License-Identifier: Apache-2.0
// vocabulary.h: calls into vocabulary/.
#include "chorus/vocabulary.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "abi/boundary.h"
#include "abi/info.h"
#include "abi/vocabulary.h"
#include "runtime/context.h"
#include "vocabulary/common.h"

using chorus::fail;
using chorus::abi::guarded;
using chorus::abi::require;

namespace {

void check_flags(uint32_t flags, uint32_t known) {
  if ((flags & ~known) != 0) fail(CHORUS_INVALID_ARGUMENT, "flags is {:#x}; the bits {:#x} are known", flags, known);
}

// Gives `items` to a caller who may only ask for their number.
template <typename Item, typename List>
void hand_over(const List &items, Item *to, size_t capacity, const char *name, size_t *out_count) {
  *require(out_count, "out_count") = items.size();
  if (capacity == 0) return;
  require(to, name);
  if (items.size() > capacity) {
    fail(CHORUS_RESOURCE_EXHAUSTED, "capacity of {} is {}; {} are needed", name, capacity, items.size());
  }
  if (!items.empty()) std::memcpy(to, items.data(), items.size() * sizeof(Item));
}

}  // namespace

extern "C" {

chorus_status chorus_vocabulary_open(const chorus_context *context, const char *path, chorus_vocabulary **out_vocabulary,
                                     chorus_error **error) {
  return guarded(error, [&] {
    *require(out_vocabulary, "out_vocabulary") = nullptr;
    chorus::context_of(context);
    *out_vocabulary = new chorus_vocabulary{chorus::vocabulary::Vocabulary::open(require(path, "path"))};
  });
}

void chorus_vocabulary_destroy(chorus_vocabulary *vocabulary) { delete vocabulary; }

size_t chorus_vocabulary_get_size(const chorus_vocabulary *vocabulary) {
  return vocabulary != nullptr ? vocabulary->vocabulary.size() : 0;
}

chorus_status chorus_vocabulary_get_token(const chorus_vocabulary *vocabulary, size_t id, chorus_token_info *out_info,
                                          chorus_error **error) {
  return guarded(error, [&] {
    const auto &v = require(vocabulary, "vocabulary")->vocabulary;
    if (id >= v.size()) fail(CHORUS_OUT_OF_RANGE, "id is {}; there are {}", id, v.size());
    chorus_token_info info = CHORUS_TOKEN_INFO_INIT;
    info.bytes = v.bytes(id).data();
    info.length = v.bytes(id).size();
    info.text = v.text(id).data();
    info.flags = v.flags(id);
    chorus::abi::fill_info(out_info, info);
  });
}

int32_t chorus_vocabulary_find(const chorus_vocabulary *vocabulary, const void *bytes, size_t length) {
  if (vocabulary == nullptr || (bytes == nullptr && length > 0)) return -1;
  return vocabulary->vocabulary.find(length > 0 ? std::string_view(static_cast<const char *>(bytes), length) : "");
}

chorus_status chorus_vocabulary_get_fingerprint(const chorus_vocabulary *vocabulary, uint64_t out_words[2],
                                                chorus_error **error) {
  return guarded(error, [&] {
    const auto words = require(vocabulary, "vocabulary")->vocabulary.fingerprint();
    std::memcpy(require(out_words, "out_words"), words.data(), sizeof(words));
  });
}

chorus_status chorus_vocabulary_encode(const chorus_vocabulary *vocabulary, const char *text, size_t length, uint32_t flags,
                                       int32_t *ids, size_t capacity, size_t *out_count, chorus_error **error) {
  return guarded(error, [&] {
    require(vocabulary, "vocabulary");
    require(out_count, "out_count");
    check_flags(flags, CHORUS_ENCODE_ADD_SPECIAL | CHORUS_ENCODE_PLAIN_SPECIAL);
    if (length > 0) require(text, "text");
    const auto found = vocabulary->vocabulary.encode(length > 0 ? std::string_view(text, length) : "", flags);
    hand_over(found, ids, capacity, "ids", out_count);
  });
}

chorus_status chorus_vocabulary_decode(const chorus_vocabulary *vocabulary, const int32_t *ids, size_t count, uint32_t flags,
                                       char *text, size_t capacity, size_t *out_length, chorus_error **error) {
  return guarded(error, [&] {
    require(vocabulary, "vocabulary");
    require(out_length, "out_length");
    check_flags(flags, CHORUS_DECODE_SKIP_SPECIAL);
    if (count > 0) require(ids, "ids");
    hand_over(vocabulary->vocabulary.decode(ids, count, flags), text, capacity, "text", out_length);
  });
}

chorus_status chorus_vocabulary_map_create(const chorus_vocabulary *from, const chorus_vocabulary *to,
                                           chorus_vocabulary_map **out_map, chorus_error **error) {
  return guarded(error, [&] {
    *require(out_map, "out_map") = nullptr;
    *out_map = new chorus_vocabulary_map{
        chorus::vocabulary::make_map(require(from, "from")->vocabulary, require(to, "to")->vocabulary)};
  });
}

chorus_status chorus_vocabulary_check_equal(const chorus_vocabulary *vocabulary, const chorus_vocabulary *other,
                                            chorus_error **error) {
  return guarded(error, [&] {
    chorus::vocabulary::check_equal(require(vocabulary, "vocabulary")->vocabulary, require(other, "other")->vocabulary);
  });
}

chorus_status chorus_vocabulary_map_create_common(const chorus_vocabulary *const *vocabularies, size_t count,
                                                  chorus_vocabulary_common common, chorus_vocabulary_map **out_maps,
                                                  chorus_error **error) {
  return guarded(error, [&] {
    require(out_maps, "out_maps");
    std::fill(out_maps, out_maps + count, nullptr);
    if (count == 0) fail(CHORUS_INVALID_ARGUMENT, "count is 0; at least 1 vocabulary is needed");
    if (common != CHORUS_VOCABULARY_UNION && common != CHORUS_VOCABULARY_INTERSECTION) {
      fail(CHORUS_INVALID_ARGUMENT, "common is {}; union (0) and intersection (1) are known", common);
    }
    std::vector<const chorus::vocabulary::Vocabulary *> list;
    for (size_t i = 0; i < count; ++i) list.push_back(&require(require(vocabularies, "vocabularies")[i], "a vocabulary")->vocabulary);
    std::vector<std::unique_ptr<chorus_vocabulary_map>> maps;
    for (auto &map : chorus::vocabulary::make_common_maps(list, common == CHORUS_VOCABULARY_INTERSECTION)) {
      maps.push_back(std::unique_ptr<chorus_vocabulary_map>(new chorus_vocabulary_map{std::move(map)}));
    }
    for (size_t i = 0; i < count; ++i) out_maps[i] = maps[i].release();
  });
}

void chorus_vocabulary_map_destroy(chorus_vocabulary_map *map) { delete map; }

chorus_status chorus_vocabulary_map_get(const chorus_vocabulary_map *map, chorus_vocabulary_map_info *out_info,
                                        chorus_error **error) {
  return guarded(error, [&] {
    const auto &m = require(map, "map")->map;
    chorus_vocabulary_map_info info = CHORUS_VOCABULARY_MAP_INFO_INIT;
    info.from_size = m.to_of_from.size();
    info.to_size = m.offsets.size() - 1;
    info.entry_count = m.ids.size();
    info.offsets = m.offsets.data();
    info.ids = m.ids.data();
    info.to_of_from = m.to_of_from.data();
    chorus::abi::fill_info(out_info, info);
  });
}

}  // extern "C"
