// SPDX-License-Identifier: Apache-2.0
// Both vocabularies sorted by (special, bytes, id), walked side by side.
#include "vocabulary/map.h"

#include <algorithm>
#include <utility>

namespace chorus::vocabulary {
namespace {

using Key = std::pair<bool, std::string_view>;

Key key_of(const Vocabulary &v, int32_t id) {
  return {v.is_special(static_cast<size_t>(id)), v.bytes(static_cast<size_t>(id))};
}

std::vector<int32_t> sorted_ids(const Vocabulary &v) {
  std::vector<int32_t> ids;
  for (size_t id = 0; id < v.size(); ++id) {
    if (!v.is_absent(id)) ids.push_back(static_cast<int32_t>(id));
  }
  std::ranges::stable_sort(ids, {}, [&](int32_t id) { return key_of(v, id); });
  return ids;
}

}  // namespace

Map make_map(const Vocabulary &from, const Vocabulary &to) {
  Map map;
  map.to_of_from.assign(from.size(), -1);
  map.offsets.assign(to.size() + 1, 0);
  const std::vector<int32_t> ours = sorted_ids(from), theirs = sorted_ids(to);
  size_t at = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    const Key key = key_of(from, ours[i]);
    const bool repeats = i > 0 && key_of(from, ours[i - 1]) == key;
    // The next of several with the same bytes, else the first that is not smaller.
    if (repeats && at + 1 < theirs.size() && key_of(to, theirs[at + 1]) == key) ++at;
    while (at < theirs.size() && key_of(to, theirs[at]) < key) ++at;
    if (at == theirs.size() || key_of(to, theirs[at]) != key) continue;
    map.to_of_from[static_cast<size_t>(ours[i])] = theirs[at];
    ++map.offsets[static_cast<size_t>(theirs[at]) + 1];
  }
  for (size_t row = 0; row < to.size(); ++row) map.offsets[row + 1] += map.offsets[row];
  map.ids.resize(static_cast<size_t>(map.offsets.back()));
  std::vector<int64_t> next(map.offsets.begin(), map.offsets.end() - 1);
  for (size_t id = 0; id < from.size(); ++id) {
    const int32_t row = map.to_of_from[id];
    if (row >= 0) map.ids[static_cast<size_t>(next[static_cast<size_t>(row)]++)] = static_cast<int32_t>(id);
  }
  return map;
}

}  // namespace chorus::vocabulary
