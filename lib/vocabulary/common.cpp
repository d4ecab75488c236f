// SPDX-License-Identifier: Apache-2.0
// Tokens keyed by (special, which of several alike, bytes) in one hash table over all vocabularies.
#include "vocabulary/common.h"

#include <algorithm>
#include <limits>
#include <string>
#include <unordered_map>

#include "runtime/error.h"

namespace chorus::vocabulary {
namespace {

std::string shown(std::string_view bytes) {
  std::string out = "'";
  for (const char c : bytes.substr(0, 40)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", byte);
    }
  }
  return out + (bytes.size() > 40 ? "…'" : "'");
}

std::string describe(const Vocabulary &v, size_t id) {
  if (id >= v.size() || v.is_absent(id)) return "no token";
  return (v.is_special(id) ? "special " : "") + shown(v.bytes(id));
}

// A key per id: absent ones have none ("").
std::vector<std::string> keys_of(const Vocabulary &v) {
  std::vector<std::string> out(v.size());
  std::unordered_map<std::string, uint32_t> seen;
  for (size_t id = 0; id < v.size(); ++id) {
    if (v.is_absent(id)) continue;
    const std::string token = (v.is_special(id) ? "s" : "t") + std::string(v.bytes(id));
    out[id] = std::to_string(seen[token]++) + token;
  }
  return out;
}

Map map_of(const std::vector<std::string> &keys, const std::unordered_map<std::string, int32_t> &common) {
  Map map;
  map.offsets.assign(common.size() + 1, 0);
  for (const std::string &key : keys) {
    const auto found = common.find(key);
    map.to_of_from.push_back(key.empty() || found == common.end() ? -1 : found->second);
    if (map.to_of_from.back() >= 0) ++map.offsets[static_cast<size_t>(map.to_of_from.back()) + 1];
  }
  for (size_t row = 0; row < common.size(); ++row) map.offsets[row + 1] += map.offsets[row];
  map.ids.resize(static_cast<size_t>(map.offsets.back()));
  for (size_t id = 0; id < keys.size(); ++id) {  // at most one token per row: keys are distinct
    if (map.to_of_from[id] >= 0) map.ids[static_cast<size_t>(map.offsets[static_cast<size_t>(map.to_of_from[id])])] = static_cast<int32_t>(id);
  }
  return map;
}

}  // namespace

void check_equal(const Vocabulary &a, const Vocabulary &b) {
  const size_t size = std::max(a.size(), b.size());
  for (size_t id = 0; id < size; ++id) {
    const std::string left = describe(a, id), right = describe(b, id);
    const bool both = id < a.size() && id < b.size() && !a.is_absent(id) && !b.is_absent(id);
    if (left == right && (!both || a.bytes(id) == b.bytes(id))) continue;
    fail(CHORUS_FAILED_PRECONDITION,
         "id {} is {} in one vocabulary and {} in the other; models of different vocabularies need a map "
         "(chorus_vocabulary_map_create()) or byte distributions (chorus/bytes.h)",
         id, left, right);
  }
}

std::vector<Map> make_common_maps(const std::vector<const Vocabulary *> &vocabularies, bool intersection) {
  std::vector<std::vector<std::string>> keys;
  std::unordered_map<std::string, size_t> holders;  // vocabularies that have the key
  for (const Vocabulary *vocabulary : vocabularies) {
    keys.push_back(keys_of(*vocabulary));
    for (const std::string &key : keys.back()) holders[key] += !key.empty();
  }
  std::unordered_map<std::string, int32_t> common;
  for (const auto &list : keys) {
    for (const std::string &key : list) {
      if (key.empty() || (intersection && holders[key] < vocabularies.size())) continue;
      if (common.size() >= static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
        fail(CHORUS_RESOURCE_EXHAUSTED, "the vocabularies together have more than 2^31 - 1 tokens");
      }
      common.emplace(key, static_cast<int32_t>(common.size()));
    }
  }
  std::vector<Map> out;
  for (const auto &list : keys) out.push_back(map_of(list, common));
  return out;
}

}  // namespace chorus::vocabulary
